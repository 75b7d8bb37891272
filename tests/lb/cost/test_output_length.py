import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.cost.output_length import MAX_GROUPS, OutputLengths, limit_bucket
from lb.settings import CostSettings


def lengths(median: int = 256) -> OutputLengths:
    return OutputLengths(CostSettings(output_tokens=median))


def taught(count: int, limit: int | None, seed: int = 1, log_median: float = 5.0) -> OutputLengths:
    known, choose = lengths(), random.Random(seed)
    for _ in range(count):
        drawn = choose.lognormvariate(log_median, 0.8)
        known.learn("m", "t", "chat", limit, min(drawn, limit) if limit is not None else drawn)
    return known


def test_prior_median_is_the_setting_and_never_above_the_limit() -> None:
    known = lengths(300)
    assert known.quantile("m", "t", "chat", None, 0.5) == pytest.approx(300, rel=0.1)
    assert known.quantile("m", "t", "chat", 16, 0.5) == 16
    assert known.quantile("m", "t", "embeddings", 0, 0.5) == 0
    assert known.remaining("m", "t", "embeddings", 0, 0) == 0


def test_quantiles_follow_the_data() -> None:
    known = taught(2000, None)
    for q, z in ((0.1, -1.2816), (0.5, 0.0), (0.9, 1.2816)):
        assert known.quantile("m", "t", "chat", None, q) == pytest.approx(math.exp(5 + 0.8 * z), rel=0.12)
    assert known.coverage == pytest.approx(0.9, abs=0.04)


def test_remaining_is_the_mean_residual_of_the_distribution() -> None:
    known, choose = taught(3000, None), random.Random(2)
    sample = [choose.lognormvariate(5, 0.8) for _ in range(20_000)]
    for seen, scatter in ((0, 0.1), (60, 0.1), (150, 0.12), (400, 0.3)):  # few answers are longer than 400
        alive = [length - seen for length in sample if length > seen]
        assert known.remaining("m", "t", "chat", None, seen) == pytest.approx(sum(alive) / len(alive), rel=scatter)


def test_an_answer_past_its_median_still_has_a_remainder() -> None:
    known = taught(1000, 4096)
    assert known.remaining("m", "t", "chat", 4096, 149) > 50
    assert known.remaining("m", "t", "chat", 4096, 3000) > 1
    assert known.remaining("m", "t", "chat", 4096, 4095) <= 1
    assert known.remaining("m", "t", "chat", 4096, 5000) == 0


def test_answers_that_always_run_into_their_limit() -> None:
    known = lengths()
    for limit in [300, 700, 900, 500] * 50:
        known.learn("m", "t", "chat", limit, limit)
    assert known.quantile("m", "t", "chat", 800, 0.5) == 800
    assert known.remaining("m", "t", "chat", 800, 200) == pytest.approx(600, rel=0.1)


def test_a_group_with_little_history_leans_on_its_parents() -> None:
    known = lengths()
    for _ in range(400):
        known.learn("m", "busy", "chat", 1000, 40)
    assert known.quantile("m", "new", "chat", 1000, 0.5) == pytest.approx(40, rel=0.3)
    assert known.quantile("other", "new", "chat", 1000, 0.5) == pytest.approx(40, rel=0.3)
    assert known.quantile("m", "busy", "completions", 1000, 0.5) == pytest.approx(256, rel=0.1)
    known.learn("m", "new", "chat", 1000, 900)
    assert known.quantile("m", "new", "chat", 1000, 0.5) < 100, "one answer does not outweigh 400"
    for _ in range(60):
        known.learn("m", "new", "chat", 1000, 900)
    assert known.quantile("m", "new", "chat", 1000, 0.5) == pytest.approx(900, rel=0.25)


def test_old_observations_fade() -> None:
    known = lengths()
    for _ in range(1500):
        known.learn("m", "t", "chat", None, 50)
    for _ in range(1000):
        known.learn("m", "t", "chat", None, 800)
    assert known.quantile("m", "t", "chat", None, 0.5) == pytest.approx(800, rel=0.2)


def test_forgets_numerically_safely_over_a_long_life() -> None:
    known = lengths()
    for number in range(12_000):
        known.learn("m", "t", "chat", None, 100 + number % 3)
    assert known.quantile("m", "t", "chat", None, 0.5) == pytest.approx(100, rel=0.2)


def test_memory_is_bounded() -> None:
    known = lengths()
    for number in range(MAX_GROUPS + 50):
        known.learn("m", f"tenant-{number}", "chat", 100, 10)
    assert known.groups == MAX_GROUPS


def test_unusable_lengths_teach_nothing() -> None:
    known = lengths()
    for bad in (-1, float("nan"), float("inf")):
        known.learn("m", "t", "chat", None, bad)
    assert known.observations == 0


@pytest.mark.parametrize(("low", "high"), [(5, 16), (17, 64), (65, 256), (1025, 4096)])
def test_limits_of_one_power_of_four_share_a_bucket(low: int, high: int) -> None:
    assert limit_bucket(low) == limit_bucket(high) != limit_bucket(high + 1)
    assert limit_bucket(None) == 0 < limit_bucket(1)


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(st.tuples(st.integers(0, 300_000), st.one_of(st.none(), st.integers(1, 8192))), max_size=60),
    limit=st.one_of(st.none(), st.integers(0, 200_000)),
    seen=st.floats(0, 400_000),
    q=st.floats(0.01, 0.99),
)
def test_answers_stay_within_their_bounds(
    answers: list[tuple[int, int | None]], limit: int | None, seen: float, q: float
) -> None:
    known = lengths()
    for tokens, bound in answers:
        known.learn("m", "t", "chat", bound, tokens if bound is None else min(tokens, bound))
    quantile = known.quantile("m", "t", "chat", limit, q)
    remaining = known.remaining("m", "t", "chat", limit, seen)
    assert math.isfinite(quantile)
    assert math.isfinite(remaining)
    assert 0 <= quantile <= known.quantile("m", "t", "chat", limit, min(0.99, q + 0.2)) + 1e-6
    assert remaining >= 0
    if limit is not None:
        assert quantile <= limit
        assert remaining <= max(0.0, limit - seen)
    elif seen < 2**17:
        assert remaining >= 1
