"""How good quantile forecasts were: pinball loss, coverage, and quantiles for models that give points only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.series import Floats, Ints

_WINDOW_DAYS = 10
"""Days of its own errors that a point's quantiles are read from."""
_FEWEST = 20
"""Errors that a quantile is read from at the least; below it nothing is said."""


@dataclass(frozen=True, slots=True)
class Score:
    """One model on one series."""

    name: str
    kind: str
    """What it is part of: `system`, `rule`, `expert`, `classic`."""
    loss: tuple[float, ...]
    """Mean pinball loss over the quantiles, by horizon, as a share of the mean demand."""
    wape: tuple[float, ...]
    """Mean absolute error of the quantile nearest to the median, by horizon, as a share of the mean demand."""
    coverage: tuple[float, ...]
    """Share of truths at or below each quantile, mean over the horizons."""


def pinball(error: Floats, levels: Floats) -> Floats:
    """Loss of truth - forecast, [..., level]: q times what was missing, 1 - q times what was too much."""
    return np.maximum(levels * error, (levels - 1.0) * error)


def score(name: str, kind: str, told: Floats, truth: Floats, levels: Floats) -> Score:
    """Score forecasts [origin, lag, level] against truths [origin, lag], NaN where telemetry was lost."""
    losses: list[float] = []
    wapes: list[float] = []
    covered: list[Floats] = []
    middle = int(np.argmin(np.abs(levels - 0.5)))
    for j in range(truth.shape[1]):
        known = np.isfinite(truth[:, j])
        came = truth[known, j]
        if not len(came):
            losses.append(float("nan"))
            wapes.append(float("nan"))
            covered.append(np.full(len(levels), np.nan))
            continue
        error = came[:, None] - told[known, j]
        mean = float(came.mean()) or 1.0
        losses.append(float(pinball(error, levels).mean()) / mean)
        wapes.append(float(np.abs(error[:, middle]).mean()) / mean)
        covered.append((error <= 0).mean(0))
    return Score(name, kind, tuple(losses), tuple(wapes), tuple(float(x) for x in np.mean(covered, 0)))


def conformal(points: Floats, errors: Floats, rows: Ints, lag: int, day: int, levels: Floats) -> Floats:
    """Quantiles [row, model, level] of points [origin, model] from the errors that were known (split conformal).

    `errors`: [origin, model], NaN where the truth is lost; `rows`: which origins. Rank q (n + 1) of the n errors of the
    last ten days at the same horizon (Vovk et al. 2005; Lei et al. 2018), of targets up to the origin.
    """
    out = np.full((len(rows), points.shape[1], len(levels)), np.nan)
    seen = np.asarray(np.isfinite(errors).all(1))
    for k, row in enumerate(rows):
        low, high = max(0, row - lag + 1 - _WINDOW_DAYS * day), row - lag + 1
        past = errors[low:high][seen[low:high]]
        if len(past) >= _FEWEST:
            ranks = np.minimum(1.0, levels * (len(past) + 1) / len(past))
            out[k] = points[row][:, None] + np.quantile(past, ranks, axis=0).T
    return np.asarray(np.maximum.accumulate(out, 2))


def geometric(values: Floats) -> float:
    """Geometric mean; 0 if one is 0, NaN if one is."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(values))))
