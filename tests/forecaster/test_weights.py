"""Weights of experts."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.series import Floats, Ints
from forecaster.weights import Weights

DAY = 24
LEVELS: Floats = np.array([0.5, 0.9])
NOON: Ints = np.array([12])


def learned(errors: Floats, days: int, scale: float = 1.0) -> Weights:
    """Experts that are off by `errors` [expert], or [bin of the day, expert]."""
    weights = Weights(errors.shape[-1], LEVELS, DAY)
    table = np.broadcast_to(errors, (DAY, errors.shape[-1]))
    for _ in range(days):
        told = scale * (100.0 + np.repeat(table[:, :, None], len(LEVELS), 2))
        weights.learn(told, np.full(DAY, scale * 100.0), np.arange(DAY))
    return weights


def test_at_first_all_count_alike() -> None:
    np.testing.assert_allclose(Weights(4, LEVELS, DAY).at(NOON), 0.25)
    assert np.isnan(Weights(4, LEVELS, DAY).losses).all()


def test_the_better_gets_more_and_all_sum_to_one() -> None:
    shares = learned(np.array([1.0, 1.1, 3.0]), 6).at(NOON)[0]
    np.testing.assert_allclose(shares.sum(0), 1.0)
    assert (np.diff(shares, axis=0) < 0).all()
    assert (shares[2] < 1e-3).all()


def test_early_on_the_best_does_not_take_it_all() -> None:
    early, late = (learned(np.array([1.0, 1.2]), days).at(NOON)[0, 0, 0] for days in (1, 12))
    assert 0.5 < early < late


def test_who_is_right_at_a_time_of_day_counts_there() -> None:
    errors = np.full((DAY, 2), 1.0)
    errors[12] = (4.0, 0.5)
    errors[3] = (0.5, 4.0)
    shares = learned(errors, 10).at(np.array([12, 3]))[:, :, 0]
    assert shares[0, 1] > 0.7
    assert shares[1, 0] > 0.7


def test_weights_follow_a_change_within_days() -> None:
    weights = learned(np.array([1.0, 2.0]), 20)
    for _ in range(5):
        told = 100.0 + np.repeat(np.array([[2.0, 1.0]]), DAY, 0)[:, :, None] * np.ones(2)
        weights.learn(told, np.full(DAY, 100.0), np.arange(DAY))
    assert (weights.at(NOON)[0, 1] > 0.8).all()


def test_what_is_not_known_teaches_nothing() -> None:
    weights = learned(np.array([1.0, 2.0]), 3)
    before = weights.at(NOON)
    weights.learn(np.full((5, 2, 2), 1e9), np.full(5, np.nan), np.arange(5))
    np.testing.assert_array_equal(weights.at(NOON), before)


def test_losses_are_pinball_losses() -> None:
    weights = Weights(1, LEVELS, DAY)
    weights.learn(np.array([[[90.0, 90.0]], [[120.0, 120.0]]]), np.array([100.0, 100.0]), np.array([0, 1]))
    # 10 too little: 5 and 9; 20 too much: 10 and 2.
    np.testing.assert_allclose(weights.losses[0], [7.5, 5.5], rtol=0.01)


@pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e12])
def test_the_unit_of_demand_does_not_matter(scale: float) -> None:
    errors = np.array([1.0, 1.1, 3.0])
    np.testing.assert_allclose(learned(errors, 4, scale).at(NOON), learned(errors, 4).at(NOON), rtol=1e-3)


def test_perfect_experts_share() -> None:
    shares = learned(np.array([0.0, 0.0, 5.0]), 5).at(NOON)[0]
    np.testing.assert_allclose(shares[:2], 0.5)
    np.testing.assert_allclose(learned(np.array([0.0, 0.0]), 5).at(NOON), 0.5)
