"""Damped linear trend: Gardner and McKenzie (1985), `Forecasting trends in time series`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecaster.frame import Frame
from forecaster.series import Floats

_RULES = ((0.6, 0.2, 0.9), (0.4, 0.1, 0.95))
"""(level, trend, damping): a quick one and a calm one; the ensemble weighs them."""
_BURN = 160
"""Bins read before the first origin; a trend from further back is damped away."""


class Trend:
    """The level goes on with a trend that fades."""

    names = tuple(f"damped trend {alpha:g}" for alpha, _, _ in _RULES)

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        first = max(0, low - _BURN)
        z = frame.z[first:high].tolist()
        out = np.empty((high - low, len(lags), len(_RULES)))
        for rule, (alpha, beta, damping) in enumerate(_RULES):
            level, trend = z[0], 0.0
            levels, trends = [level], [trend]
            for value in z[1:]:
                expected = level + damping * trend
                error = value - expected
                level = expected + alpha * error
                trend = damping * trend + alpha * beta * error
                levels.append(level)
                trends.append(trend)
            reach = np.array([sum(damping**k for k in range(1, lag + 1)) for lag in lags])
            out[:, :, rule] = (
                np.array(levels[low - first :])[:, None] + np.array(trends[low - first :])[:, None] * reach
            )
        return out
