"""Holt-Winters with a damped trend and the day as its season (Winters 1960)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from statsmodels.tools.sm_exceptions import ConvergenceWarning
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from forecaster.exponential import Smoothing, continued
from forecaster.frame import Frame
from forecaster.series import Floats


class HoltWinters:
    """Level, damped trend and season of a day, all smoothed."""

    names = ("Holt-Winters damped",)

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        return continued(frame, lags, low, high, _fit)


def _fit(z: Floats, day: int) -> Smoothing:
    """First states by the usual heuristic, the four parameters by least squares."""
    model = ExponentialSmoothing(
        z,
        trend="add",
        damped_trend=True,
        seasonal="add",
        seasonal_periods=day,
        initialization_method="heuristic",
    )
    with warnings.catch_warnings():
        # Parameters at which the search ends early still smooth; what they are worth, the losses show.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = model.fit(use_brute=False).params
    return Smoothing(
        found["smoothing_level"],
        found["smoothing_trend"],
        found["smoothing_seasonal"],
        found["damping_trend"],
        found["initial_level"],
        found["initial_trend"],
        np.asarray(found["initial_seasons"]),
    )
