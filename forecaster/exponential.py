"""Exponential smoothing with a damped trend and a season, as recursions: states at every bin from given parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.frame import Frame
from forecaster.refits import daily
from forecaster.series import Floats, Ints

_LEAST_DAYS = 3
"""Two seasons give the first states, one shows whether they hold."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Parameters and first states: Holt-Winters, additive, damped (Gardner and McKenzie 1985), in the form of
    Hyndman and Athanasopoulos, `Forecasting: Principles and Practice`, 3rd ed., 8.3."""

    alpha: float
    beta: float
    gamma: float
    damping: float
    level: float
    trend: float
    season: Floats
    """One per bin of the season, the first for the first bin."""


@dataclass(frozen=True, slots=True)
class States:
    """After every bin."""

    level: Floats
    trend: Floats
    season: Floats
    """One season longer than the series: entry t is what is expected of bin t, known a season before."""


def run(z: Floats, smoothing: Smoothing) -> States:
    """Go through z."""
    alpha, beta, gamma, damping = smoothing.alpha, smoothing.beta, smoothing.gamma, smoothing.damping
    level, trend = smoothing.level, smoothing.trend
    season = smoothing.season.tolist()
    levels, trends = [], []
    for index, value in enumerate(z.tolist()):
        expected = level + damping * trend
        new = alpha * (value - season[index]) + (1.0 - alpha) * expected
        season.append(gamma * (value - expected) + (1.0 - gamma) * season[index])
        trend = beta * (new - level) + (1.0 - beta) * damping * trend
        level = new
        levels.append(level)
        trends.append(trend)
    return States(np.array(levels), np.array(trends), np.array(season))


def ahead(states: States, damping: float, origins: Ints, lags: Sequence[int]) -> Floats:
    """[origin, lag], for lags of at most a season."""
    reach = np.array([sum(damping**k for k in range(1, lag + 1)) for lag in lags])
    base = states.level[origins][:, None] + states.trend[origins][:, None] * reach
    return np.asarray(base + states.season[origins[:, None] + np.array(lags)])


def continued(
    frame: Frame, lags: Sequence[int], low: int, high: int, fit: Callable[[Floats, int], Smoothing]
) -> Floats:
    """Forecasts of z [origin in [low, high), lag, 1], fitted once a day by `fit(z, bins of a day)`; the last value
    while too little is known, and for lags of more than a season."""
    out = []
    for start, end, first, stop in daily(frame.day, low, high):
        origins = np.arange(first, stop)
        if end - start < _LEAST_DAYS * frame.day or max(lags) > frame.day:
            out.append(np.repeat(frame.at(origins)[:, None], len(lags), 1))
            continue
        smoothing = fit(frame.z[start:end], frame.day)
        states = run(frame.z[start:stop], smoothing)
        out.append(ahead(states, smoothing.damping, origins - start, lags))
    return np.concatenate(out)[:, :, None]
