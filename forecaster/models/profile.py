"""The usual course of the day, moved to today's level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecaster.frame import Frame
from forecaster.series import Floats, Ints
from forecaster.smoothing import smoothed

_DAYS = (1, 2, 4, 7)
"""Days that the course is the mean of: new ones follow change, many are calm."""
_WIDTHS_S = (900.0, 2700.0)
"""Half-widths of the window around a time of day: earlier days are known on both sides of it, and a centred mean
takes their noise away without delay."""
_ALPHAS = (1.0, 0.4, 0.15)
"""How quickly today's level follows."""
_BURN = 110
"""Bins read before the first origin for the level; older ones have a weight below 1e-7."""
_WEEK = 7


class Profile:
    """Course of the day over 1 to 7 days, plus the distance of today from it; and the same with last week's day."""

    names = (
        *(f"profile {days}d {width / 60:g}min {alpha:g}" for days in _DAYS for width in _WIDTHS_S for alpha in _ALPHAS),
        *(f"profile week {alpha:g}" for alpha in _ALPHAS),
    )

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        first = max(0, low - _BURN)
        origins = np.arange(first, high)
        skip = low - first
        z = frame.z[first:high]
        out = np.empty((high - low, len(lags), len(self.names)))
        column = 0
        courses = [_courses(frame, lags, origins, _bins(frame, width)) for width in _WIDTHS_S]
        for days in _DAYS:
            for here, ahead in courses:
                for alpha in _ALPHAS:
                    out[:, :, column] = _moved(z, here[days - 1], ahead[:, days - 1], alpha, skip)
                    column += 1
        here, ahead = _week(frame, lags, origins, _bins(frame, _WIDTHS_S[0]), courses[0])
        for alpha in _ALPHAS:
            out[:, :, column] = _moved(z, here, ahead, alpha, skip)
            column += 1
        return out


def _bins(frame: Frame, width_s: float) -> int:
    return max(1, round(width_s / 86_400.0 * frame.day))


def _moved(z: Floats, here: Floats, ahead: Floats, alpha: float, skip: int) -> Floats:
    gap = z - here
    if alpha < 1.0:
        gap = smoothed(gap, alpha)
    return (ahead + gap)[:, skip:].T


def _window(frame: Frame, centre: Ints, width: int, cap: Ints) -> tuple[Floats, Floats]:
    """Mean of z around bins, nothing after `cap`; and 1.0 where the window is known, else 0.0."""
    top = np.minimum(centre + width, cap)
    bottom = np.minimum(centre - width, top)
    known = bottom >= 0
    return np.where(known, frame.mean(bottom, top + 1), 0.0), known.astype(np.float64)


def _courses(frame: Frame, lags: Sequence[int], origins: Ints, width: int) -> tuple[Floats, Floats]:
    """Means over 1 to 7 days: at the origins [day, origin], and ahead of them [lag, day, origin]."""
    last = frame.at(origins)
    back = frame.day * np.arange(1, _WEEK + 1)[:, None]
    here = _means(*_window(frame, origins - back, width, origins - 1), last)
    ahead = [_means(*_window(frame, origins + lag - back * -(-lag // frame.day), width, origins), last) for lag in lags]
    return here, np.stack(ahead)


def _means(values: Floats, known: Floats, otherwise: Floats) -> Floats:
    count = np.cumsum(known, 0)
    return np.where(count > 0, np.cumsum(values, 0) / np.maximum(count, 1.0), otherwise)


def _week(
    frame: Frame, lags: Sequence[int], origins: Ints, width: int, daily: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """The day a week ago; yesterday until a week is known."""
    back = _WEEK * frame.day
    here, known = _window(frame, origins - back, width, origins - 1)
    ahead = np.stack([_window(frame, origins + lag - back, width, origins)[0] for lag in lags])
    enough = known > 0
    return np.where(enough, here, daily[0][0]), np.where(enough, ahead, daily[1][:, 0])
