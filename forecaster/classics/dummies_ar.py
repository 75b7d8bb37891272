"""Regression on the time of day with autoregressive errors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import numpy as np
from statsmodels.tools.sm_exceptions import SingularMatrixWarning
from statsmodels.tsa.ar_model import AutoReg

from forecaster.autoregression import ahead
from forecaster.frame import Frame
from forecaster.refits import daily
from forecaster.series import Floats, Ints

_ORDER = 6
"""Bins that are looked back: half an hour to an hour."""
_SLOT_S = 1_800
"""Length of the time of day that shares a level: one per bin would be fitted to the noise of a few days."""
_LEAST_DAYS = 2


class DummiesAr:
    """z = level of the half hour of the day + autoregressive error."""

    names = ("seasonal dummies + AR",)

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        out = []
        width = max(1, round(_SLOT_S / 86_400 * frame.day))
        slots = -(-frame.day // width)
        for start, end, first, stop in daily(frame.day, low, high):
            origins = np.arange(first, stop)
            if end - start < _LEAST_DAYS * frame.day:
                out.append(np.repeat(frame.at(origins)[:, None], len(lags), 1))
                continue
            z = frame.z[start:end]
            slot = np.arange(start, end) % frame.day // width
            levels = np.bincount(slot, z, slots) / np.bincount(slot, minlength=slots)
            with warnings.catch_warnings():
                # Where nothing changes, the fit of least norm is the right one.
                warnings.simplefilter("ignore", SingularMatrixWarning)
                fit = AutoReg(z - levels[slot], _ORDER, trend="c").fit().params
            course = partial(_course, levels[np.arange(frame.day) // width], fit[0], fit[1:])
            out.append(ahead(frame, lags, origins, z, fit[1:], course))
        return np.concatenate(out)[:, :, None]


def _course(levels: Floats, constant: float, coefficients: Floats, index: Ints) -> Floats:
    """What is added to the autoregression on z itself, so that it is one on the distance from the levels."""
    day = len(levels)
    past = levels[(index[:, None] - 1 - np.arange(len(coefficients))) % day]
    return np.asarray(constant + levels[index % day] - past @ coefficients)
