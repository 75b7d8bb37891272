"""The entry: what is promised of a forecast, whatever comes in, and in however many parts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.forecast import Forecaster, forecast
from forecaster.series import Floats, Series
from forecaster.settings import ForecastSettings
from tests.forecaster.demand import HOURLY, NAN, TWO_HOURLY, check, daily, live, made, same, series

# ---------------------------------------------------------------------- anything may come in

DEMAND = st.one_of(
    st.just(0.0), st.just(NAN), st.floats(0.0, 1e4), st.sampled_from([5e-324, 1e-300, 1e-9, 1e9, 1e30, 1e300, 1.7e308])
)


@st.composite
def histories(draw: st.DrawFn) -> Floats:
    """Runs of the same value, of anything, of noise: up to a week and a half of hours."""
    parts: list[Floats] = []
    for _ in range(draw(st.integers(0, 4))):
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["same", "noise", "any"]))
        if kind == "same":
            parts.append(np.full(length, draw(DEMAND)))
        elif kind == "noise":
            scale = draw(st.sampled_from([1e-12, 1.0, 1e3, 1e6]))
            parts.append(scale * np.random.default_rng(draw(st.integers(0, 99))).gamma(1.0, 1.0, length))
        else:
            parts.append(np.array(draw(st.lists(DEMAND, min_size=1, max_size=8))))
    return np.concatenate(parts) if parts else np.empty(0)


@settings(max_examples=15, deadline=None, derandomize=True)
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


LONG = daily(7.5)
PAIR = replace(HOURLY, horizons_s=(3600.0, 21_600.0))
DAYS = daily(13, 7200)
CASES: dict[str, Floats] = {
    "one point": np.array([5.0]),
    "two points": np.array([5.0, 6.0]),
    "constant": np.full(150, 7.0),
    "zeros": np.zeros(150),
    "zeros then demand": np.concatenate([np.zeros(130), np.full(10, 50.0)]),
    "demand then zeros": np.concatenate([DAYS, np.zeros(30)]),
    "a spike of 1e308": np.concatenate([DAYS, [1e308], daily(1, 7200, seed=2)]),
    "all 1.7e308": np.full(150, 1.7e308),
    "subnormal": np.full(150, 5e-324),
    "tiny": DAYS * 1e-15,
    "growth by a thousand": DAYS * np.geomspace(1.0, 1000.0, len(DAYS)),
    "step by a thousand": np.concatenate([DAYS, 1000.0 * daily(3, 7200, seed=3)]),
    "every other lost": np.where(np.arange(len(DAYS)) % 2, DAYS, NAN),
    "lost but for one": np.where(np.arange(len(DAYS)) == 100, DAYS, NAN),
    "lost for four days": np.where((np.arange(len(DAYS)) > 60) & (np.arange(len(DAYS)) < 110), NAN, DAYS),
    "rare": np.where(np.random.default_rng(5).random(len(DAYS)) < 0.03, 100.0, 0.0),
    "up and down": np.tile([0.0, 1e6], 80),
}


@pytest.mark.parametrize("name", CASES)
def test_i10_hard_series_have_a_forecast(name: str) -> None:
    history = CASES[name]
    check(made(history, TWO_HOURLY), history, TWO_HOURLY)


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
    history = daily(13, 7200)
    one, other = made(history, TWO_HOURLY), made(history * scale, TWO_HOURLY)
    np.testing.assert_allclose(np.array(other.values), scale * np.array(one.values), rtol=1e-4)


# ---------------------------------------------------------------------- nothing is read ahead


@pytest.mark.parametrize("origin", [1, 30, 6 * 24 + 7])
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
    history = daily(10)
    at_once, parts = made(history, PAIR), live(history, PAIR, start=9 * 24)[0][-1]
    np.testing.assert_allclose(np.array(at_once.values), np.array(parts.values), rtol=0.05)
    assert at_once.score_ratio == pytest.approx(parts.score_ratio, rel=0.1)


def test_bins_that_are_known_are_not_read_again() -> None:
    forecaster = Forecaster(HOURLY)
    forecaster.observe(series(LONG))
    before = forecaster.forecast(7.5 * 86_400.0)
    assert before is not None
    assert forecaster.observe(series(LONG)) == []
    assert forecaster.observe(series(9.0 * LONG[:100])) == []
    assert forecaster.observe(series([])) == []
    after = forecaster.forecast(7.5 * 86_400.0)
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
    forecaster.observe(series(LONG[:90]))
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
    history = np.concatenate([daily(20, 7200), 1000.0 * daily(8, 7200, seed=2)])
    for low in range(0, len(history), 6):
        forecaster.observe(Series(low * 7200, 7200, history[low : low + 6]))
    assert 2 <= len(began) <= 8
    got = forecaster.forecast(28 * 86_400.0)
    assert got is not None
    assert got.values[0][0] == pytest.approx(1e6 * (1.0 + 0.7 * math.sin(2 * math.pi / 24)), rel=0.3)
