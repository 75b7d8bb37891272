"""How far off a forecast will be: its scale, learned from how far off it was in like situations.

log |error| is regressed (ridge) on what is known at the origin: how large errors are at present on four time scales,
how large they were at this time on earlier days, the forecast itself, the level, and how restless demand is. What is
left over is calibrated elsewhere, so this need not be right, only informative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.frame import Frame
from forecaster.series import Bools, Floats, Ints
from forecaster.smoothing import smoothed

ALPHAS = (0.5, 0.15, 0.03, 0.006)
"""Time scales of the present size of errors: from two bins to half a day."""
_ALPHAS = np.array(ALPHAS)
_FEW_ROWS = 16
_BURN = 60
"""Bins read before the first origin for the latest steps; older ones have a weight below 0.2 %."""
WARM_DAYS = 2
"""Days at the start from which nothing is learned, once there are more: most rules know no season yet."""
_DAYS = 7
_CLOCK_S = 1800.0
"""Errors within half an hour of the same time on earlier days belong together."""
_RIDGE = 0.02
"""Of the number of rows; the inputs are standardised."""
_LEAST = 0.1
"""Of the median |error|, added before the logarithm: an error of zero is not infinitely good."""
_FAR = 2.5
"""Standard deviations at which an input is cut off: outside of what was seen a line leads astray."""
_MOST = 0.8
"""|log scale| is bounded by this, a factor of 2.2 either way. On eighteen public series a bound of 0.7 took 3.6 % off
the loss and one of 1.2 took 2.9 %; without any, a wrong scale exploded on some."""
ROWS_DAYS = 14
"""Days of origins that it is learned from; errors of long ago came from another ensemble."""


def log_size(residual: Floats, typical: Floats) -> Floats:
    """log |error|, bounded from below; NaN (not known yet) as if typical. [origin, model]"""
    return np.log(np.where(np.isfinite(residual), np.abs(residual), typical) + _LEAST * typical)


def averages(sizes: Floats, before: Floats | None) -> Floats:
    """Present sizes on each time scale: [origin, model, scale]; `before` is the entry ahead of the first."""
    if before is None or len(sizes) > _FEW_ROWS:
        parts = [smoothed(sizes, a, None if before is None else before[:, k]) for k, a in enumerate(ALPHAS)]
        return np.stack(parts, 2)
    # The same, without the price of setting up filters for a bin or two.
    out = np.empty((*sizes.shape, len(ALPHAS)))
    now = before
    for row, size in enumerate(sizes):
        now = now + _ALPHAS * (size[:, None] - now)
        out[row] = now
    return out


def restless(frame: Frame, low: int, high: int) -> Floats:
    """Level and how large the latest steps were, on a log scale, on two time scales: [origin in [low, high), input]."""
    first = max(0, low - _BURN)
    z = frame.z[first:high]
    steps = np.log(np.abs(np.diff(z, prepend=z[:1])) + 1e-3)
    return np.stack([frame.z[low:high], *(smoothed(steps, alpha)[low - first :] for alpha in (0.5, 0.1))], 1)


def inputs(
    frame: Frame, lag: int, sizes: Floats, recent: Floats, points: Floats, restless: Floats, low: int, high: int
) -> Floats:
    """[origin in [low, high), model, input]. `sizes`, `recent`, `points` are whole histories [origin, ...]; `restless`
    is of these origins."""
    origins = np.arange(low, high)
    day = frame.day
    newest = np.maximum(origins - lag, 0)
    columns = [recent[newest, :, k] for k in range(len(ALPHAS))]
    width = max(1, round(_CLOCK_S / 86_400.0 * day))
    total, count = np.zeros_like(columns[0]), np.zeros((len(origins), 1))
    yesterday = columns[2]
    for back in range(1, _DAYS + 1):
        centre = origins - back * day
        bottom = centre - width
        known = (bottom >= WARM_DAYS * day) & (newest > bottom)
        mean = _window_means(sizes, bottom, np.minimum(centre + width, newest) + 1, known)
        if back == 1:
            yesterday = np.where(known[:, None], mean, columns[2])
        total += mean
        count += known[:, None]
    columns += [yesterday, (total + columns[2]) / (count + 1.0)]
    columns.append(points[low:high])
    columns += [np.repeat(one[:, None], sizes.shape[1], 1) for one in restless.T]
    return np.stack(columns, 2)


def _window_means(sizes: Floats, bottom: Ints, top: Ints, known: Bools) -> Floats:
    """Mean of rows [bottom, top) for each origin, 0 where it is not known. Both rise by one from origin to origin, or
    less."""
    if not known.any():
        return np.zeros((len(bottom), sizes.shape[1]))
    first = int(bottom[known][0])
    sums = np.concatenate([np.zeros((1, sizes.shape[1])), np.cumsum(sizes[first : int(top[-1])], 0)])
    low, high = np.where(known, bottom - first, 0), np.where(known, top - first, 1)
    return np.where(known[:, None], (sums[high] - sums[low]) / (high - low)[:, None], 0.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """A fitted scale of every model's error."""

    mean: Floats
    """Of each input: [model, input]; so are the next two."""
    deviation: Floats
    slope: Floats

    def of(self, table: Floats) -> Floats:
        """[origin, model], around 1."""
        known = np.clip((table - self.mean) / self.deviation, -_FAR, _FAR)
        return np.asarray(np.exp(np.clip((known * self.slope).sum(2), -_MOST, _MOST)))


def fit(table: Floats, sizes: Floats) -> Scale:
    """Learn from [origin, model, input] and the sizes [origin, model] that came out."""
    mean = table.mean(0)
    deviation = table.std(0) + 1e-9
    known = ((table - mean) / deviation).transpose(1, 2, 0)
    target = (sizes - sizes.mean(0)).T
    gram = known @ known.transpose(0, 2, 1)
    count = table.shape[2]
    slope = np.linalg.solve(gram + _RIDGE * len(table) * np.eye(count), (known @ target[:, :, None]))[:, :, 0]
    return Scale(mean, deviation, slope)
