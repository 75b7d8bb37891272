"""Exponential smoothing with a damped trend and a season, as recursions: states at every bin from given parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.series import Floats, Ints


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
