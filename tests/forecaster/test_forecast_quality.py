"""The entry: how good a forecast is, when it is trusted, and what known events do to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from forecaster.boost import Boost
from forecaster.events import Event
from forecaster.forecast import Forecaster
from forecaster.series import Floats
from tests.forecaster.demand import FIVE_MINUTES, HOURLY, NAN, TWO_HOURLY, check, daily, live, made, series

LONG = daily(7.5)


# ---------------------------------------------------------------------- how good it is


def test_on_a_clean_daily_cycle_it_beats_the_day_before_and_its_quantiles_hold() -> None:
    history = daily(22)
    got, changes = live(history, replace(HOURLY, horizons_s=(3600.0,)), start=12 * 24)
    last = got[-1]
    assert last.score_ratio < 0.85
    assert 0.85 <= last.coverage[1] <= 0.95
    told = np.array([one.values[0] for one in got[:-1]])
    assert 0.85 <= (history[12 * 24 + 1 :] <= told[:, 1]).mean() <= 0.95
    assert last.trusted
    assert [change.trusted for _, change in changes] == [True]
    assert "times the cost of acting on the last value" in last.trust_reason


def test_i13_a_level_shift_is_followed_within_the_hour_and_said() -> None:
    calm = daily(5, 300, noise=0.05)
    shifted = np.concatenate([calm[: 4 * 288], 3.0 * calm[4 * 288 : 4 * 288 + 24]])
    got, changes = live(shifted, FIVE_MINUTES, start=4 * 288 - 1)
    # Within the hour the level is there, and so it stays.
    for index in range(12, 24):
        assert got[index].values[0][0] == pytest.approx(shifted[4 * 288 + index], rel=0.25)
    assert any("demand left its level (upwards)" in one.reason for one in got[1:12])
    assert not any("demand left its level" in one.reason for one in got[:1])
    # Meanwhile it does not act: what was forecast was dearer than the last value.
    assert [change.trusted for _, change in changes] == [True, False]
    assert changes[1][0] - 4 * 288 < 6


def test_the_gate_closes_when_demand_becomes_a_random_walk_and_opens_when_it_is_over() -> None:
    calm = daily(16, 7200)
    steps = np.random.default_rng(3).standard_normal(6 * 12)
    walk = calm[-1] * np.exp(np.cumsum(0.3 * steps))
    got, changes = live(np.concatenate([calm, walk, daily(12, 7200, seed=9)]), TWO_HOURLY, start=16 * 12 - 1)
    moves = [(index / 12 - 16, change) for index, change in changes]
    assert any(not change.trusted for day, change in moves if 0 <= day < 6)
    assert not got[6 * 12].trusted
    assert got[-1].trusted
    assert all("times the cost of acting on the last value" in change.reason for _, change in moves)
    # Each move is one: open, closed, open, ...
    assert all(a.trusted != b.trusted for (_, a), (_, b) in pairwise(moves))


def test_i15_poisoned_nights_close_the_gate_and_raise_no_forecast_of_calm_hours() -> None:
    history = daily(15, 7200)
    random = np.random.default_rng(2)
    bad = daily(4, 7200, seed=8) * np.where(random.random(48) < 0.3, random.gamma(2.0, 20.0, 48), 1.0)
    got, changes = live(np.concatenate([history, bad]), TWO_HOURLY, start=15 * 12 - 1)
    assert any(not change.trusted for _, change in changes)
    assert not got[-1].trusted
    peak = max(history.max(), bad.max())
    assert max(one.values[0][-1] for one in got) <= TWO_HOURLY.growth * peak


def test_i15_spikes_at_one_hour_of_the_night_do_not_raise_the_median_of_others() -> None:
    poisoned = daily(12)
    poisoned[[9 * 24 + 18, 10 * 24 + 18, 11 * 24 + 18]] *= 50.0
    np.testing.assert_allclose(
        [row[0] for row in made(poisoned).values], [row[0] for row in made(daily(12)).values], rtol=0.15
    )


# ---------------------------------------------------------------------- known events


def event(first: int, bins: int, low: float, high: float) -> Event:
    return Event(first * 3600.0, (first + bins) * 3600.0, low, high)


def test_an_event_raises_its_bins_by_as_much_and_no_others() -> None:
    history = daily(8)
    without = np.array(made(history).values)
    within = np.array(made(history, events=(event(8 * 24 + 1, 2, 2.0, 2.0),)).values)
    np.testing.assert_allclose(within / without, [[1.0] * 4, [2.0] * 4, [1.0] * 4])
    # A range widens: its lower end for low quantiles, its upper for high ones.
    spread = np.array(made(history, events=(event(8 * 24, 1, 1.4, 2.2),)).values)
    np.testing.assert_allclose(spread[0] / without[0], 1.4 + 0.8 * np.array(HOURLY.quantiles))


@pytest.mark.parametrize("ratio", [2.0, 0.0])
def test_what_an_event_did_is_not_taken_for_the_course_of_the_day(ratio: float) -> None:
    calm = daily(9)
    history = calm[: 8 * 24 + 5].copy()
    launch = event(7 * 24 + 6, 3, ratio, ratio)
    history[7 * 24 + 6 : 7 * 24 + 9] *= ratio
    plain = made(calm[: 8 * 24 + 5]).values[1][0]  # for the bin from 6 o'clock on
    known, unknown = made(history, events=(launch,)).values[1][0], made(history).values[1][0]
    assert known == pytest.approx(plain, rel=0.1)
    assert abs(unknown - plain) > 1.5 * abs(known - plain)


def test_an_event_that_leaves_nothing_forecasts_nothing_for_its_bins() -> None:
    history = daily(8)
    got = made(history, events=(event(8 * 24, 2, 0.0, 0.0),))
    assert got.values[:2] == ((0.0,) * 4, (0.0,) * 4)
    assert got.values[2][0] > 100.0


# ---------------------------------------------------------------------- trust


def test_stale_data_are_not_trusted() -> None:
    forecaster = Forecaster(HOURLY)
    forecaster.observe(series(daily(12)))
    end_s = 12 * 86_400.0
    fresh, stale = forecaster.forecast(end_s + 10_800), forecaster.forecast(end_s + 10_801)
    nonsense = forecaster.forecast(NAN)
    assert fresh is not None
    assert stale is not None
    assert nonsense is not None
    assert fresh.trusted
    assert not stale.trusted
    assert stale.trust_reason == "the newest data are 10801 s old"
    assert stale.values == fresh.values
    assert not nonsense.trusted


def test_i09_lost_telemetry_is_not_trusted_until_it_is_back() -> None:
    history = daily(6, 300)
    history[5 * 288 - 7 : 5 * 288] = NAN
    got, _ = live(history[: 5 * 288 + 8], FIVE_MINUTES, start=5 * 288 - 1)
    assert not got[0].trusted
    assert got[0].trust_reason == "most of the last hour's telemetry is lost"
    assert got[8].trust_reason != got[0].trust_reason
    check(got[0], history[: 5 * 288], FIVE_MINUTES)


def nan(self: Boost, points: Floats, situation: Floats, phase: Floats) -> Floats:
    return np.full(len(points), NAN)


def huge(self: Boost, points: Floats, situation: Floats, phase: Floats) -> Floats:
    return np.full(len(points), 1e300)


def broken(self: Boost, points: Floats, situation: Floats, phase: Floats) -> Floats:
    raise ValueError("no trees")


@pytest.mark.parametrize("predict", [nan, huge, broken])
def test_i11_a_model_that_explodes_is_left_out_and_named(predict: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Boost, "predict", predict)
    got = made(LONG)
    check(got, LONG, HOURLY)
    assert "; boosting " in got.reason
    assert got.values[0][0] == pytest.approx(1000.0, rel=0.3)


def test_i11_an_ensemble_without_a_number_gives_the_recent_peak_and_no_trust() -> None:
    forecaster = Forecaster(HOURLY)
    forecaster.observe(series(LONG))
    assert forecaster.ensemble is not None
    forecaster.ensemble._latest[0, 2] = NAN
    got = forecaster.forecast(7.5 * 86_400.0)
    assert got is not None
    assert np.array(got.values) == pytest.approx(LONG[-168:].max())
    assert not got.trusted
    assert got.trust_reason == "the models gave no number; the recent peak stands in"
