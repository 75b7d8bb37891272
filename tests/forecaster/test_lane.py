"""The ensemble and its lanes: nothing is read ahead, blocks do not matter, quantiles hold, what fails is left out."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster import stack
from forecaster.boost import Boost
from forecaster.ensemble import Ensemble
from forecaster.lane import EXPERTS, POINTS
from forecaster.series import Floats

DAY = 24
LAGS = (1, 3)
LEVELS = (0.5, 0.9, 0.95)
SCALE = 1000.0


def daily(days: float, seed: int = 1, noise: float = 0.1) -> Floats:
    hours = np.arange(int(days * DAY))
    course = 1.0 + 0.7 * np.sin(2 * np.pi * hours / DAY)
    return np.asarray(SCALE * course * np.exp(noise * np.random.default_rng(seed).standard_normal(len(hours))))


def fed(demand: Floats, block: int = 4) -> tuple[Ensemble, Floats]:
    ensemble = Ensemble(3600, LAGS, LEVELS, SCALE)
    return ensemble, ensemble.extend(demand, block)


@pytest.mark.parametrize("cut", [0, 1, 40, 5 * DAY + 2, 8 * DAY - 1])
def test_what_comes_after_an_origin_does_not_matter_to_it(cut: int) -> None:
    """Not even within its block."""
    truth = daily(9)
    shuffled = truth.copy()
    np.random.default_rng(2).shuffle(shuffled[cut + 1 :])
    other = np.concatenate([truth[: cut + 1], 30.0 * shuffled[cut + 1 :]])
    np.testing.assert_array_equal(fed(truth)[1][: cut + 1], fed(other)[1][: cut + 1])


def test_the_size_of_blocks_hardly_matters() -> None:
    demand = daily(11)
    one, six = (fed(demand, block)[1][5 * DAY :] for block in (1, 6))
    # Calibration and refits come at other bins; forecasts may differ by what that brings, a small part of the noise.
    assert np.abs(np.log(one / six)).mean() < 0.03


@pytest.fixture(scope="module")
def twenty_days() -> tuple[Floats, Ensemble, Floats]:
    demand = daily(20)
    return demand, *fed(demand)


def test_quantiles_ascend_and_hold(twenty_days: tuple[Floats, Ensemble, Floats]) -> None:
    demand, ensemble, told = twenty_days
    assert (told >= 0).all()
    assert (np.diff(told, axis=2) >= 0).all()
    for j, lag in enumerate(LAGS):
        covered = (demand[8 * DAY + lag :][:, None] <= told[8 * DAY : -lag, j]).mean(0)
        assert covered == pytest.approx(LEVELS, abs=0.07)
        assert ensemble.lanes[j].record.coverage == pytest.approx(LEVELS, abs=0.07)


def test_on_a_clean_daily_cycle_the_mixture_beats_both_naive_ones(
    twenty_days: tuple[Floats, Ensemble, Floats],
) -> None:
    for lane in twenty_days[1].lanes:
        system, last, day_before = lane.record.losses.mean(1)
        assert system < 0.8 * day_before
        assert system < 0.6 * last


def test_every_expert_is_a_point_with_a_weight() -> None:
    ensemble, _ = fed(daily(4), 8)
    assert len(set(EXPERTS)) == len(EXPERTS)
    assert ensemble.lanes[0].points.shape == (4 * DAY, len(POINTS))
    shares = ensemble.lanes[0].weights.at(np.array([5]))
    assert shares.shape == (1, len(EXPERTS), len(LEVELS))
    np.testing.assert_allclose(shares.sum(1), 1.0)


def test_memory_is_bounded_and_old_days_are_dropped() -> None:
    demand = daily(62)[::2]
    ensemble = Ensemble(7200, (1,), LEVELS, SCALE)
    told = ensemble.extend(demand, 6)
    assert len(told) == len(demand)
    assert len(ensemble.frame) == len(ensemble.lanes[0].points) == 47 * 12
    # What is said after it is as good as before.
    error = np.abs(np.log(told[:-1, 0, 0] / demand[1:]))
    assert error[60 * 12 :].mean() < 1.3 * error[50 * 12 : 60 * 12].mean()


# ---------------------------------------------------------------------- what fails


def explode(self: Boost, points: Floats, situation: Floats, phase: Floats) -> Floats:
    return np.full(len(points), 1e300)


def no_number(self: Boost, points: Floats, situation: Floats, phase: Floats) -> Floats:
    return np.full(len(points), np.nan)


def fail(*_: object) -> Floats:
    raise RuntimeError("trees are gone")


@pytest.mark.parametrize(
    ("predict", "note"),
    [
        (explode, "boosting gave no sensible number"),
        (no_number, "boosting gave no sensible number"),
        (fail, "boosting failed (RuntimeError)"),
    ],
)
def test_i11_boosting_that_explodes_is_dropped_until_it_is_fitted_again(
    predict: object, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand = daily(9)
    ensemble, _ = fed(demand[: 8 * DAY])
    with monkeypatch.context() as patched:
        patched.setattr(Boost, "predict", predict)
        told = ensemble.extend(demand[8 * DAY : 8 * DAY + 3], 1)
    assert ensemble.faults == (note,)
    assert np.isfinite(told).all()
    points = ensemble.lanes[0].points[-1]
    assert points[POINTS.index("boost")] == points[POINTS.index("stack")]
    assert ensemble.extend(demand[8 * DAY + 3 : 8 * DAY + 4], 1).max() < 5 * SCALE
    assert ensemble.faults == (note,)
    ensemble.fit_boost()
    assert ensemble.faults == ()
    ensemble.extend(demand[8 * DAY + 4 : 8 * DAY + 5], 1)
    points = ensemble.lanes[0].points[-1]
    assert points[POINTS.index("boost")] != points[POINTS.index("stack")]


def test_i12_a_fit_that_fails_leaves_the_rest_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Boost, "fit", fail)
    monkeypatch.setattr(stack, "weigh", fail)
    demand = daily(9)
    ensemble, told = fed(demand)
    assert ensemble.faults == (
        "boosting could not be fitted (RuntimeError)",
        "stacking could not be fitted (RuntimeError)",
    )
    assert np.isfinite(told).all()
    error = np.abs(np.log(told[5 * DAY : -1, 0, 0] / demand[5 * DAY + 1 :]))
    assert error.mean() < 0.3


def test_memory_that_runs_out_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def out(*_: object) -> Floats:
        raise MemoryError

    demand = daily(9)
    ensemble, _ = fed(demand[: 8 * DAY])
    monkeypatch.setattr(Boost, "predict", out)
    with pytest.raises(MemoryError):
        ensemble.extend(demand[8 * DAY : 8 * DAY + 1], 1)
