"""Demand made for tests, and what is forecast from it."""

from __future__ import annotations

import numpy as np

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
