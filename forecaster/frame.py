"""What models see of a series: demand on a scale where they work well, without gaps, growing bin by bin."""

from __future__ import annotations

import numpy as np

from forecaster.series import Bools, Floats, Ints

_FIRST_ROOM = 1024
_LARGEST = 700.0
"""exp of more is no number."""


class Frame:
    """Demand on the scale z = log(demand + offset).

    The offset, the mean of the demand known at first, keeps quiet bins from dominating and zero finite, while growth
    still multiplies. Where telemetry was lost, z carries the last reading on and `seen` is false.
    """

    def __init__(self, day: int, offset: float, first_phase: int = 0) -> None:
        self.day = day
        """Bins of a day."""
        self.offset = offset
        self.first_phase = first_phase
        """Bin of the (UTC) day in which the series starts."""
        self._count = 0
        self._z = np.zeros(_FIRST_ROOM)
        self._sums = np.zeros(_FIRST_ROOM + 1)
        self._seen = np.zeros(_FIRST_ROOM, dtype=np.bool_)

    def __len__(self) -> int:
        return self._count

    @property
    def z(self) -> Floats:
        return self._z[: self._count]

    @property
    def sums(self) -> Floats:
        """sums[i] is the sum of the first i values of z: window means at the price of a subtraction."""
        return self._sums[: self._count + 1]

    @property
    def seen(self) -> Bools:
        return self._seen[: self._count]

    def extend(self, demand: Floats) -> None:
        """Append bins; NaN is a lost one."""
        low, high = self._count, self._count + len(demand)
        self._reserve(high)
        seen = np.isfinite(demand)
        z = np.log(np.where(seen, demand, 0.0) + self.offset)
        if low == 0 and len(demand) and not seen[0]:
            z[0] = np.log(self.offset)
        last = np.maximum.accumulate(np.where(seen, np.arange(len(demand)), -1))
        before = self._z[low - 1] if low else (z[0] if len(z) else 0.0)
        self._z[low:high] = np.where(last >= 0, z[np.maximum(last, 0)], before)
        self._seen[low:high] = seen
        self._sums[low + 1 : high + 1] = self._sums[low] + np.cumsum(self._z[low:high])
        self._count = high

    def forget(self, count: int) -> None:
        """Drop the first `count` bins, a whole number of days."""
        keep = self._count - count
        self._z[:keep] = self._z[count : self._count]
        self._seen[:keep] = self._seen[count : self._count]
        self._sums[1 : keep + 1] = np.cumsum(self._z[:keep])
        self._count = keep

    def phase(self, index: Ints) -> Ints:
        """Bin of the day of these bins."""
        return (index + self.first_phase) % self.day

    def at(self, index: Ints) -> Floats:
        """z of bins; before the first bin, the first."""
        return self._z[np.maximum(index, 0)]

    def mean(self, low: Ints, high: Ints) -> Floats:
        """Mean of z over bins [low, high); bins before the first are left out, and it is never empty."""
        low = np.maximum(low, 0)
        high = np.maximum(high, low + 1)
        return (self._sums[high] - self._sums[low]) / (high - low)

    def demand(self, z: Floats) -> Floats:
        """Back to demand."""
        return np.maximum(np.exp(np.minimum(z, _LARGEST)) - self.offset, 0.0)

    def _reserve(self, count: int) -> None:
        if count > len(self._z):
            room = max(count, 2 * len(self._z))
            self._z = np.concatenate([self._z, np.zeros(room - len(self._z))])
            self._seen = np.concatenate([self._seen, np.zeros(room - len(self._seen), dtype=np.bool_)])
            self._sums = np.concatenate([self._sums, np.zeros(room + 1 - len(self._sums))])
