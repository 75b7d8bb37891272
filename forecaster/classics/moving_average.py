"""Moving averages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecaster.frame import Frame
from forecaster.series import Floats

_SPANS_S = (1_800, 3_600, 10_800)
"""What autoscalers average over, and two multiples of it."""


class MovingAverage:
    """The mean of the last half hour, hour or three hours."""

    names = tuple(f"moving average {span / 3600:g}h" for span in _SPANS_S)

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        origins = np.arange(low, high)
        widths = [max(1, round(span / 86_400 * frame.day)) for span in _SPANS_S]
        means = np.stack([frame.mean(origins + 1 - width, origins + 1) for width in widths], 1)
        return np.repeat(means[:, None], len(lags), 1)
