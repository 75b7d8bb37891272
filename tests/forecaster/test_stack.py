"""Stacking."""

from __future__ import annotations

import numpy as np

from forecaster.series import Floats
from forecaster.stack import combine, weigh

RANDOM = np.random.default_rng(3)
TRUTH: Floats = RANDOM.normal(0.0, 1.0, 400)
RULES: Floats = TRUTH[:, None] + RANDOM.normal(0.0, 1.0, (400, 4)) * np.array([0.05, 1.0, 1.0, 1.0])
NEW = np.zeros(400)


def off(points: Floats, weights: Floats, truth: Floats) -> float:
    return float(np.abs(combine(points, weights) - truth).mean())


def test_the_rule_that_is_right_gets_the_weight() -> None:
    weights = weigh(RULES, TRUTH, NEW, 14.0)
    assert off(RULES, weights, TRUTH) < 0.06
    assert off(RULES, np.zeros(4), TRUTH) > 0.3


def test_rules_that_agree_are_left_at_their_mean() -> None:
    points = np.repeat(TRUTH[:, None], 4, 1)
    weights = weigh(points, TRUTH + 1.0, NEW, 14.0)
    np.testing.assert_allclose(combine(points, weights), TRUTH)


def test_wild_errors_count_only_in_part() -> None:
    wild = TRUTH.copy()
    wild[::20] += 50.0
    weights = weigh(RULES, wild, NEW, 14.0)
    assert off(RULES, weights, TRUTH) < 0.2


def test_what_is_old_fades() -> None:
    age = np.where(np.arange(400) < 200, 100.0, 0.0)
    swapped = np.where(np.arange(400)[:, None] < 200, RULES[:, ::-1], RULES)
    assert off(RULES[200:], weigh(swapped, TRUTH, age, 14.0), TRUTH[200:]) < 0.07
    assert off(RULES[200:], weigh(swapped, TRUTH, NEW, 14.0), TRUTH[200:]) > 0.2


def test_no_weights_are_the_plain_mean() -> None:
    np.testing.assert_allclose(combine(RULES, np.zeros(4)), RULES.mean(1))
