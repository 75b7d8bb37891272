"""A forecast as the controller reads it: quantiles of demand by horizon, and whether it may act."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import NormalDist

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Outlook:
    """Demand to come, in the pool's unit per second."""

    made_at: float
    """Monotonic instant that horizons count from."""
    horizons_s: tuple[float, ...]
    """Ascending, positive."""
    quantiles: tuple[float, ...]
    """Ascending, within (0, 1)."""
    values: tuple[tuple[float, ...], ...]
    """One row per horizon, one value per quantile."""
    trusted: bool = True
    reason: str = ""
    """Why it is trusted or not, for people."""
    model: str = ""

    def valid(self) -> bool:
        """All numbers can be used: finite, not negative, and in the shape that was promised."""
        return (
            len(self.values) == len(self.horizons_s) > 0
            and len(self.quantiles) > 0
            and all(0.0 < one < 1.0 for one in self.quantiles)
            and all(len(row) == len(self.quantiles) for row in self.values)
            and all(isfinite(value) and value >= 0.0 for row in self.values for value in row)
        )

    def reach(self, now: float) -> float:
        """Seconds from `now` to its last horizon; negative when it is over."""
        return self.made_at + self.horizons_s[-1] - now

    def at(self, ahead_s: float, quantile: float, now: float) -> float:
        """Value for `now + ahead_s`: linear between horizons (the nearest outside), linear in the normal score
        between quantiles (beyond the outermost by the slope of the last two, as a normal tail would go on)."""
        row = self._row(now + ahead_s - self.made_at)
        return max(0.0, _quantile(self.quantiles, row, quantile))

    def _row(self, horizon_s: float) -> Sequence[float]:
        horizons = self.horizons_s
        index = bisect_left(horizons, horizon_s)
        if index == 0:
            return self.values[0]
        if index == len(horizons):
            return self.values[-1]
        before, after = horizons[index - 1], horizons[index]
        share = (horizon_s - before) / (after - before)
        return [a + share * (b - a) for a, b in zip(self.values[index - 1], self.values[index], strict=True)]


def _quantile(levels: Sequence[float], row: Sequence[float], wanted: float) -> float:
    if len(levels) == 1:
        return row[0]
    index = min(max(bisect_left(levels, wanted), 1), len(levels) - 1)
    low, high = _NORMAL.inv_cdf(levels[index - 1]), _NORMAL.inv_cdf(levels[index])
    share = (_NORMAL.inv_cdf(wanted) - low) / (high - low)
    return row[index - 1] + share * (row[index] - row[index - 1])
