"""The entry: what is promised of a forecast, whatever comes in."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.boost import Boost
from forecaster.events import Event
from forecaster.forecast import Forecast, Forecaster, forecast
from forecaster.guard import recent_peak
from forecaster.series import Floats, Series
from forecaster.settings import ForecastSettings
from forecaster.trust import Change

NAN = float("nan")
HOURLY = ForecastSettings(step_s=3600, horizons_s=(3600.0, 7200.0, 21600.0), stale_s=10_800.0)
TWO_HOURLY = ForecastSettings(step_s=7200, horizons_s=(7200.0,), stale_s=21_600.0)
FIVE_MINUTES = ForecastSettings(horizons_s=(300.0,))


def series(values: Floats | list[float], step_s: int = 3600, start_s: int = 0) -> Series:
    return Series(start_s, step_s, np.asarray(values, dtype=np.float64))


def daily(days: float, step_s: int = 3600, seed: int = 1, noise: float = 0.1, level: float = 1000.0) -> Floats:
    """Demand with a course of the day and multiplicative noise."""
    hours = np.arange(int(days * 86_400 / step_s)) * step_s / 3600.0
    course = 1.0 + 0.7 * np.sin(2 * np.pi * hours / 24.0)
    return np.asarray(level * course * np.exp(noise * np.random.default_rng(seed).standard_normal(len(hours))))


def made(values: Floats | list[float], chosen: ForecastSettings = HOURLY, events: tuple[Event, ...] = ()) -> Forecast:
    one = series(values, chosen.step_s)
    got = forecast(one, chosen, now_s=one.end_s, events=events)
    assert got is not None
    return got


def check(got: Forecast, history: Floats, chosen: ForecastSettings) -> None:
    """Finite, not negative, ascending in the quantile, bounded."""
    values = np.array(got.values)
    assert values.shape == (len(chosen.horizons_s), len(chosen.quantiles))
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (np.diff(values, axis=1) >= 0).all()
    assert values.max() <= chosen.growth * recent_peak(history, chosen.step_s) * (1 + 1e-12)


def live(values: Floats, chosen: ForecastSettings, start: int = 0) -> tuple[list[Forecast], list[tuple[int, Change]]]:
    """Bins from `start` on come one by one: what is forecast after each, and how the gate moved with which."""
    forecaster = Forecaster(chosen)
    made, changes = [], []
    step_s = chosen.step_s
    for index in range(start, len(values)):
        first = 0 if index == start else index
        moved = forecaster.observe(Series(first * step_s, step_s, values[first : index + 1]))
        changes += [(index, change) for change in moved]
        got = forecaster.forecast((index + 1) * step_s)
        assert got is not None
        made.append(got)
    return made, changes


def same(one: Forecast, other: Forecast) -> bool:
    return repr(one) == repr(other)  # NaN equals NaN


# ---------------------------------------------------------------------- anything may come in

DEMAND = st.one_of(
    st.just(0.0), st.just(NAN), st.floats(0.0, 1e4), st.sampled_from([5e-324, 1e-300, 1e-9, 1e9, 1e30, 1e300, 1.7e308])
)


@st.composite
def histories(draw: st.DrawFn) -> Floats:
    """Runs of the same value, of anything, of noise: up to a week and a half of hours."""
    parts: list[Floats] = []
    for _ in range(draw(st.integers(0, 4))):
        length = draw(st.integers(1, 60))
        kind = draw(st.sampled_from(["same", "noise", "any"]))
        if kind == "same":
            parts.append(np.full(length, draw(DEMAND)))
        elif kind == "noise":
            scale = draw(st.sampled_from([1e-12, 1.0, 1e3, 1e6]))
            parts.append(scale * np.random.default_rng(draw(st.integers(0, 99))).gamma(1.0, 1.0, length))
        else:
            parts.append(np.array(draw(st.lists(DEMAND, min_size=1, max_size=8))))
    return np.concatenate(parts) if parts else np.empty(0)


@settings(max_examples=20, deadline=None)
@given(histories())
def test_whatever_comes_in_a_forecast_is_finite_ascending_and_bounded(history: Floats) -> None:
    one = series(history)
    got = forecast(one, HOURLY, now_s=one.end_s)
    if not np.isfinite(history).any():
        assert got is None
        return
    assert got is not None
    check(got, history, HOURLY)
    again = forecast(one, HOURLY, now_s=one.end_s)
    assert again is not None
    assert same(got, again)


LONG = daily(9)
CASES: dict[str, Floats] = {
    "one point": np.array([5.0]),
    "two points": np.array([5.0, 6.0]),
    "constant": np.full(240, 7.0),
    "zeros": np.zeros(240),
    "zeros then demand": np.concatenate([np.zeros(200), np.full(10, 50.0)]),
    "demand then zeros": np.concatenate([LONG, np.zeros(30)]),
    "a spike of 1e308": np.concatenate([LONG, [1e308], daily(1, seed=2)]),
    "all 1.7e308": np.full(240, 1.7e308),
    "subnormal": np.full(240, 5e-324),
    "tiny": LONG * 1e-15,
    "growth by a thousand": LONG * np.geomspace(1.0, 1000.0, len(LONG)),
    "step by a thousand": np.concatenate([LONG, 1000.0 * daily(3, seed=3)]),
    "every other lost": np.where(np.arange(len(LONG)) % 2, LONG, NAN),
    "lost but for one": np.where(np.arange(len(LONG)) == 100, LONG, NAN),
    "lost for four days": np.where((np.arange(len(LONG)) > 60) & (np.arange(len(LONG)) < 160), NAN, LONG),
    "rare": np.where(np.random.default_rng(5).random(len(LONG)) < 0.03, 100.0, 0.0),
    "up and down": np.tile([0.0, 1e6], 110),
}


@pytest.mark.parametrize("name", CASES)
def test_i10_hard_series_have_a_forecast(name: str) -> None:
    history = CASES[name]
    check(made(history), history, HOURLY)


def test_of_nothing_nothing_is_forecast() -> None:
    assert forecast(series([]), HOURLY, now_s=0.0) is None
    assert forecast(series([NAN] * 50), HOURLY, now_s=180_000.0) is None


@pytest.mark.parametrize("step_s", [21_600, 43_200, 86_400])
def test_days_of_few_bins_have_a_forecast(step_s: int) -> None:
    chosen = ForecastSettings(step_s=step_s, horizons_s=(86_400.0,))
    history = daily(130, step_s)
    check(made(history, chosen), history, chosen)


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_the_unit_of_demand_does_not_matter(scale: float) -> None:
    np.testing.assert_allclose(np.array(made(LONG * scale).values), scale * np.array(made(LONG).values), rtol=1e-4)


# ---------------------------------------------------------------------- nothing is read ahead


@pytest.mark.parametrize("origin", [1, 30, 8 * 24 + 7])
def test_a_forecast_knows_nothing_after_its_instant(origin: int) -> None:
    now_s = origin * 3600.0 + 1800.0
    future = LONG[origin:].copy()
    np.random.default_rng(1).shuffle(future)
    got = [
        forecast(series(np.concatenate([LONG[:origin], rest])), HOURLY, now_s=now_s)
        for rest in (LONG[origin:], 50.0 * future, np.full(3, NAN), [])
    ]
    assert got[0] is not None
    assert got[0].made_at_s == origin * 3600
    assert all(one is not None and same(one, got[0]) for one in got)


# ---------------------------------------------------------------------- history that grows


def test_from_the_first_bin_on_every_length_of_history_has_a_forecast() -> None:
    history = daily(200 / 24)
    got, _ = live(history, HOURLY)
    widths = []
    for length, one in enumerate(got, 1):
        check(one, history[:length], HOURLY)
        middle, high = one.values[0][:2]
        widths.append((high - middle) / 1000.0)
    assert widths[0] > 0.1
    assert all(0.03 < width < 1.5 for width in widths)
    # With days of errors known, it is sure of more than at first.
    assert np.mean(widths[-48:]) < 0.6 * np.mean(widths[:24])
    errors = np.abs(np.log([one.values[0][0] for one in got[:-1]] / history[1:]))
    assert errors[-72:].mean() < 0.75 * errors[:24].mean()


@pytest.mark.parametrize("length", [1, 2, 3, 23, 24, 25, 47, 49, 73])
def test_a_short_history_at_once_is_the_same_as_bin_by_bin(length: int) -> None:
    history = daily(4)[:length]
    parts = live(history, HOURLY)[0][-1]
    np.testing.assert_allclose(np.array(made(history).values), np.array(parts.values), rtol=0.1)


def test_in_parts_or_at_once_is_about_the_same() -> None:
    history = daily(12)
    at_once, parts = made(history), live(history, HOURLY, start=10 * 24)[0][-1]
    np.testing.assert_allclose(np.array(at_once.values), np.array(parts.values), rtol=0.05)
    assert at_once.score_ratio == pytest.approx(parts.score_ratio, rel=0.1)


def test_bins_that_are_known_are_not_read_again() -> None:
    forecaster = Forecaster(HOURLY)
    forecaster.observe(series(LONG))
    before = forecaster.forecast(9 * 86_400.0)
    assert before is not None
    assert forecaster.observe(series(LONG)) == []
    assert forecaster.observe(series(9.0 * LONG[:100])) == []
    assert forecaster.observe(series([])) == []
    after = forecaster.forecast(9 * 86_400.0)
    assert after is not None
    assert same(before, after)


def test_parts_may_overlap() -> None:
    one, two = Forecaster(HOURLY), Forecaster(HOURLY)
    for low, high in ((0, 100), (50, 103), (103, 108)):
        one.observe(Series(low * 3600, 3600, LONG[low:high]))
    for low, high in ((0, 100), (100, 103), (103, 108)):
        two.observe(Series(low * 3600, 3600, LONG[low:high]))
    got = one.forecast(108 * 3600.0), two.forecast(108 * 3600.0)
    assert got[0] is not None
    assert got[1] is not None
    assert same(got[0], got[1])


def test_a_hole_between_parts_is_lost_telemetry() -> None:
    one, two = Forecaster(HOURLY), Forecaster(HOURLY)
    one.observe(series(LONG[:100]))
    one.observe(Series(110 * 3600, 3600, LONG[110:120]))
    two.observe(series(LONG[:100]))
    two.observe(Series(100 * 3600, 3600, np.concatenate([np.full(10, NAN), LONG[110:120]])))
    got = one.forecast(120 * 3600.0), two.forecast(120 * 3600.0)
    assert got[0] is not None
    assert got[1] is not None
    assert same(got[0], got[1])


def test_after_a_silence_of_months_it_begins_anew() -> None:
    forecaster = Forecaster(HOURLY)
    forecaster.observe(series(LONG))
    start_s = 400 * 86_400
    forecaster.observe(Series(start_s, 3600, LONG[:30]))
    got = forecaster.forecast(start_s + 30 * 3600.0)
    fresh = forecast(Series(start_s, 3600, LONG[:30]), HOURLY, now_s=start_s + 30 * 3600.0)
    assert got is not None
    assert fresh is not None
    assert got.values == fresh.values


def test_history_is_bounded() -> None:
    history = daily(70, 7200)
    forecaster = Forecaster(TWO_HOURLY)
    forecaster.observe(series(history, 7200))
    got = forecaster.forecast(70 * 86_400.0)
    assert got is not None
    assert "on 45.0 days" in got.reason
    check(got, history, TWO_HOURLY)


def test_minutes_become_bins_on_the_grid_of_the_epoch() -> None:
    minutes = np.full(10 * 60, 2.0)
    forecaster = Forecaster(HOURLY)
    # From 00:20: the first whole hour is 01:00 to 02:00.
    forecaster.observe(Series(1200, 60, minutes))
    got = forecaster.forecast(36_000.0)
    assert got is not None
    assert got.made_at_s == 36_000
    assert got.values[0][0] == pytest.approx(120.0, rel=0.05)


def test_demand_that_outgrows_its_first_scale_is_gone_through_again_and_not_every_time() -> None:
    began = []

    class Counted(Forecaster):
        def _begin(self, events: object) -> None:
            began.append(self._end_s)
            super()._begin(())

    forecaster = Counted(TWO_HOURLY)
    history = np.concatenate([daily(30, 7200), 1000.0 * daily(8, 7200, seed=2)])
    for low in range(0, len(history), 6):
        forecaster.observe(Series(low * 7200, 7200, history[low : low + 6]))
    assert 2 <= len(began) <= 8
    got = forecaster.forecast(38 * 86_400.0)
    assert got is not None
    assert got.values[0][0] == pytest.approx(1e6 * (1.0 + 0.7 * math.sin(2 * math.pi / 24)), rel=0.3)


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
    got = forecaster.forecast(9 * 86_400.0)
    assert got is not None
    assert np.array(got.values) == pytest.approx(LONG[-168:].max())
    assert not got.trusted
    assert got.trust_reason == "the models gave no number; the recent peak stands in"
