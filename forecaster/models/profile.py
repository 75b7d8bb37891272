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

    names = tuple(
        f"profile {course} {alpha:g}"
        for alpha in _ALPHAS
        for course in (*(f"{days}d {width / 60:g}min" for width in _WIDTHS_S for days in _DAYS), "week")
    )

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        first = max(0, low - _BURN)
        origins = np.arange(first, high)
        courses = [_courses(frame, lags, origins, _bins(frame, width)) for width in _WIDTHS_S]
        picked = np.array(_DAYS) - 1
        here_week, ahead_week = _week(frame, lags, origins, _bins(frame, _WIDTHS_S[0]), courses[0])
        here = np.concatenate([*(here[picked] for here, _ in courses), here_week[None]])
        ahead = np.concatenate([*(ahead[:, picked] for _, ahead in courses), ahead_week[:, None]], 1)
        gap = (frame.z[first:high] - here).T
        moved = [ahead + (gap if alpha == 1.0 else smoothed(gap, alpha)).T for alpha in _ALPHAS]
        return np.concatenate(moved, 1)[:, :, low - first :].transpose(2, 0, 1)


def _bins(frame: Frame, width_s: float) -> int:
    return max(1, round(width_s / 86_400.0 * frame.day))


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
