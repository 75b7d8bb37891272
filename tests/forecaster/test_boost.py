"""Boosting."""

from __future__ import annotations

import numpy as np

from forecaster.boost import Boost, situation
from forecaster.frame import Frame
from forecaster.series import Floats, Ints

DAY = 24
COUNT = 600
RANDOM = np.random.default_rng(4)
PHASE: Ints = np.arange(COUNT) % DAY
POINTS: Floats = RANDOM.normal(5.0, 0.3, (COUNT, 3))
SITUATION: Floats = RANDOM.normal(0.0, 1.0, (COUNT, 8))
# At night the first rule is right, by day the last.
TRUTH: Floats = np.where(PHASE < 8, POINTS[:, 0], POINTS[:, 2])


def test_it_learns_which_rule_is_right_when() -> None:
    boost = Boost.fit(POINTS[:480], SITUATION[:480], PHASE[:480], TRUTH[:480], seed=0)
    got = boost.predict(POINTS[480:], SITUATION[480:], PHASE[480:])
    mean = POINTS[480:].mean(1)
    assert np.abs(got - TRUTH[480:]).mean() < 0.6 * np.abs(mean - TRUTH[480:]).mean()


def test_the_same_input_and_seed_give_the_same_trees() -> None:
    one, two = (Boost.fit(POINTS, SITUATION, PHASE, TRUTH, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.predict(POINTS, SITUATION, PHASE), two.predict(POINTS, SITUATION, PHASE))


def test_rules_that_are_all_right_are_left_alone() -> None:
    points = np.repeat(TRUTH[:, None], 3, 1)
    boost = Boost.fit(points, SITUATION, PHASE, TRUTH, seed=0)
    np.testing.assert_allclose(boost.predict(points, SITUATION, PHASE), TRUTH, atol=1e-6)


def test_the_situation_of_an_origin_does_not_know_what_follows() -> None:
    demand = RANDOM.gamma(5.0, 20.0, 300)
    one, two = Frame(DAY, 100.0), Frame(DAY, 100.0)
    one.extend(demand)
    two.extend(np.concatenate([demand[:250], np.full(50, 1e6)]))
    np.testing.assert_array_equal(situation(one, 200, 300)[:50], situation(two, 200, 300)[:50])
    np.testing.assert_allclose(situation(one, 240, 250), situation(one, 200, 300)[40:50], atol=2e-3)
