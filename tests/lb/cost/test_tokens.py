import random

import pytest

from lb.cost.tokens import MAX_MODELS, TokenEstimator
from lb.settings import CostSettings


def estimator() -> TokenEstimator:
    return TokenEstimator(CostSettings())


def test_prior_is_the_settings_ratio() -> None:
    assert estimator().estimate("m", 4000, 0.0) == pytest.approx(1000)
    assert estimator().estimate("m", 3000, 1.0) == pytest.approx(1200)
    assert estimator().ratio("m") == pytest.approx(4.0)


def test_learns_a_models_ratio_per_script() -> None:
    tokens, choose = estimator(), random.Random(1)
    for _ in range(300):
        size = int(choose.lognormvariate(7.5, 0.8))
        tokens.learn("dense", size, 0.0, max(1, round(size / 3.1 * choose.lognormvariate(0, 0.1))))
        tokens.learn("dense", size, 0.9, max(1, round(size / 1.7 * choose.lognormvariate(0, 0.1))))
    assert tokens.ratio("dense") == pytest.approx(3.1, rel=0.08)
    assert tokens.ratio("dense", 0.9) == pytest.approx(1.7, rel=0.08)
    assert tokens.error < 0.15


def test_an_unknown_model_uses_what_all_models_taught() -> None:
    tokens = estimator()
    for _ in range(50):
        tokens.learn("known", 4000, 0.0, 1333)
    assert tokens.ratio("new") == pytest.approx(3.0, rel=0.1)


def test_one_absurd_count_changes_little_and_impossible_ones_nothing() -> None:
    tokens = estimator()
    for _ in range(100):
        tokens.learn("m", 4000, 0.0, 1000)
    tokens.learn("m", 4000, 0.0, 5500)
    assert tokens.ratio("m") == pytest.approx(4.0, rel=0.04)
    before = tokens.ratio("m")
    for impossible in (0, -5, 1, 10**9):
        tokens.learn("m", 4000, 0.0, impossible)
    tokens.learn("m", 0, 0.0, 100)
    assert tokens.ratio("m") == before


def test_follows_a_change() -> None:
    tokens = estimator()
    for _ in range(200):
        tokens.learn("m", 8000, 0.0, 2000)
    for _ in range(80):
        tokens.learn("m", 8000, 0.0, 4000)
    assert tokens.ratio("m") == pytest.approx(2.0, rel=0.08)


def test_memory_is_bounded_and_keeps_the_recent() -> None:
    tokens = estimator()
    for number in range(MAX_MODELS + 200):
        tokens.learn("kept", 4000, 0.0, 2000)
        tokens.learn(f"model-{number}", 4000, 0.0, 1000)
    assert tokens.models == MAX_MODELS
    assert tokens.ratio("kept") == pytest.approx(2.0, rel=0.05)


def test_error_is_the_mean_relative_miss() -> None:
    tokens = estimator()
    tokens.learn("m", 4000, 0.0, 2000)
    assert tokens.error == pytest.approx(0.5)
    assert tokens.observations == 1
