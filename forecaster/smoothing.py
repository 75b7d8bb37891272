"""Recursive averages of whole arrays."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from forecaster.series import Floats


def smoothed(values: Floats, alpha: float, before: Floats | None = None) -> Floats:
    """Exponentially weighted mean along the first axis, one value per entry: m += alpha * (value - m).

    `before` is the mean so far (shape of one entry); None: the first entry is.
    """
    start = values[:1] if before is None else np.asarray(before)[None]
    out, _ = lfilter([alpha], [1.0, alpha - 1.0], values, axis=0, zi=start * (1.0 - alpha))
    return np.asarray(out, dtype=np.float64)
