"""Bounds on what a forecast may say: never NaN, negative, falling with the quantile, or unbounded."""

from __future__ import annotations

import numpy as np

from forecaster.series import Floats

_WEEK_S = 7 * 86_400


def recent_peak(history: Floats, step_s: int) -> float:
    """Largest known demand of a bin in the last week; before that if all of the week is lost, 0 if all is."""
    week = history[-max(1, _WEEK_S // step_s) :]
    for part in (week, history):
        known = part[np.isfinite(part)]
        if len(known):
            return float(known.max())
    return 0.0


def usable(values: Floats, otherwise: float) -> tuple[Floats, str]:
    """The values, or where they are no numbers `otherwise` for all, with what was wrong."""
    if np.isfinite(values).all():
        return values, ""
    return np.full_like(values, otherwise), "the models gave no number; the recent peak stands in"


def bounded(values: Floats, most: Floats) -> Floats:
    """Within [0, most], not falling along the last axis."""
    return np.asarray(np.maximum.accumulate(np.minimum(np.maximum(values, 0.0), most), -1))
