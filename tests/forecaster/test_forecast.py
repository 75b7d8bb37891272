"""The entry: what is promised of a forecast, whatever comes in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.events import Event
from forecaster.forecast import Forecast, forecast
from forecaster.guard import recent_peak
from forecaster.series import Floats, Series
from forecaster.settings import ForecastSettings

NAN = float("nan")
HOURLY = ForecastSettings(step_s=3600, horizons_s=(3600.0, 7200.0, 21600.0), stale_s=10_800.0)
HALF_HOURLY = ForecastSettings(step_s=1800, horizons_s=(1800.0, 3600.0), stale_s=5400.0)


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
