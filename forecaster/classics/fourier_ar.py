"""Fourier terms of the day and the week with autoregression: dynamic harmonic regression (Hyndman and Athanasopoulos,
`Forecasting: Principles and Practice`, 3rd ed., 10.5), fitted by least squares."""

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
"""Bins that are looked back: half an hour to an hour. More change the loss by less than a percent."""
_DAY_PAIRS, _WEEK_PAIRS = 8, 3
"""Pairs of sine and cosine: courses of the day down to three hours, of the week down to two days."""
_LEAST_DAYS, _WEEKLY_DAYS = 2, 14
"""Days of history from which a day, and a week, can be told from a trend."""


class FourierAr:
    """z = a + harmonics of day and week + autoregression."""

    names = ("Fourier + AR",)

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        out = []
        for start, end, first, stop in daily(frame.day, low, high):
            origins = np.arange(first, stop)
            days = (end - start) // frame.day
            if days < _LEAST_DAYS:
                out.append(np.repeat(frame.at(origins)[:, None], len(lags), 1))
                continue
            weekly = days >= _WEEKLY_DAYS
            z, waves = frame.z[start:end], _Waves(frame.day, weekly)
            with warnings.catch_warnings():
                # Where nothing changes, the fit of least norm is the right one.
                warnings.simplefilter("ignore", SingularMatrixWarning)
                fit = AutoReg(z, _ORDER, trend="c", exog=waves.of(np.arange(start, end))).fit().params
            course = partial(waves.course, fit[0], fit[_ORDER + 1 :])
            out.append(ahead(frame, lags, origins, z, fit[1 : _ORDER + 1], course))
        return np.concatenate(out)[:, :, None]


class _Waves:
    """Harmonics of bins."""

    def __init__(self, day: int, weekly: bool) -> None:
        turns = [k / day for k in range(1, _DAY_PAIRS + 1) if 2 * k < day]
        turns += [k / (7.0 * day) for k in range(1, _WEEK_PAIRS + 1)] if weekly else []
        self._turns = 2.0 * np.pi * np.array(turns)

    def of(self, index: Ints) -> Floats:
        """[bin, wave]"""
        angles = index[:, None] * self._turns
        return np.concatenate([np.sin(angles), np.cos(angles)], 1)

    def course(self, constant: float, slopes: Floats, index: Ints) -> Floats:
        """The deterministic part of bins."""
        return np.asarray(constant + self.of(index) @ slopes)
