"""No change: the last value, and exponentially smoothed levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecaster.frame import Frame
from forecaster.series import Floats
from forecaster.smoothing import smoothed

ALPHAS = (1.0, 0.5, 0.25, 0.1)
"""From the last value to a mean over about 20 bins; slower ones follow a daily cycle too late to be of use."""
BURN = 160
"""Bins read before the first origin: what is older has a weight below 1e-7 even at the slowest smoothing."""


class Level:
    """The level stays."""

    names = tuple("last value" if alpha == 1.0 else f"level {alpha:g}" for alpha in ALPHAS)

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        first = max(0, low - BURN)
        z = frame.z[first:high]
        levels = np.stack([z if alpha == 1.0 else smoothed(z, alpha) for alpha in ALPHAS], 1)[low - first :]
        return np.repeat(levels[:, None, :], len(lags), 1)
