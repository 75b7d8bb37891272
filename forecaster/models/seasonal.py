"""As at the same time on earlier days: seasonal naive of day and week, and medians over days."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecaster.frame import Frame
from forecaster.series import Floats

DAYS = 7


class Seasonal:
    """What was at this time of day. With `+ half gap` half of today's distance from yesterday is added."""

    names = (
        "seasonal naive day",
        "seasonal naive day + half gap",
        "seasonal naive week",
        "median 3 days",
        "median 7 days",
    )

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        origins = np.arange(low, high)
        day = frame.day
        last = frame.at(origins)
        out = np.empty((high - low, len(lags), len(self.names)))
        gap = np.where(origins >= day, last - frame.at(origins - day), 0.0)
        for j, lag in enumerate(lags):
            back = origins[:, None] + lag - day * np.arange(1, DAYS + 1)
            # A horizon beyond a day reads the newest day that is known at the origin.
            back = np.where(back > origins[:, None], back - day * -(-lag // day), back)
            known = back >= 0
            # A day that is not known yet counts as the newest that is, that one as the last value.
            newest = np.where(known[:, :1], frame.at(back[:, :1]), last[:, None])
            past = np.where(known, frame.at(back), newest)
            out[:, j, 0] = past[:, 0]
            out[:, j, 1] = past[:, 0] + 0.5 * np.where(known[:, 0], gap, 0.0)
            out[:, j, 2] = past[:, 6]
            out[:, j, 3] = np.median(past[:, :3], 1)
            out[:, j, 4] = np.median(past, 1)
        return out
