"""STL (Cleveland et al. 1990) takes the course of the day away; exponential smoothing continues what is left."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from statsmodels.tools.sm_exceptions import ConvergenceWarning
from statsmodels.tsa.holtwinters import ExponentialSmoothing
from statsmodels.tsa.seasonal import STL

from forecaster.exponential import Smoothing, continued
from forecaster.frame import Frame
from forecaster.series import Floats

_JUMPS = 12
"""Loess is evaluated so many times a season and interpolated between: a twentieth of the price, the same course."""


class StlEts:
    """The last day's seasonal part of STL, plus a smoothed level with a damped trend."""

    names = ("STL + ETS",)

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        return continued(frame, lags, low, high, _fit)


def _fit(z: Floats, day: int) -> Smoothing:
    jump = max(1, day // _JUMPS)
    seasonal = STL(z, period=day, seasonal_jump=jump, trend_jump=jump, low_pass_jump=jump).fit().seasonal
    course = np.asarray(seasonal[-day:])
    model = ExponentialSmoothing(z - seasonal, trend="add", damped_trend=True, initialization_method="heuristic")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = model.fit(use_brute=False).params
    # All of it is whole days, so the last day's course is in phase with the first bin.
    return Smoothing(
        found["smoothing_level"],
        found["smoothing_trend"],
        0.0,
        found["damping_trend"],
        found["initial_level"],
        found["initial_trend"],
        course,
    )
