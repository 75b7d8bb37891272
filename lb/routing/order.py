"""Replicas of a large pool in order of the work ahead of them, kept as they change.

With 200 replicas a scan of all of them costs more than everything else together. Here a change costs a bisection, and
a decision looks at the best few.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from math import inf

from lb.replica import Replica


class WorkOrder:
    """Replicas sorted by `Replica.order_key`. A key may only change through `move`."""

    __slots__ = ("_sorted",)

    def __init__(self, replicas: list[Replica]) -> None:
        self._sorted: list[tuple[float, int, Replica]] = sorted((one.order_key, one.index, one) for one in replicas)

    def move(self, replica: Replica, previous_key: float) -> None:
        """`replica.order_key` was `previous_key` and has changed. One that is not here is left out."""
        ranked = self._sorted
        at = bisect_left(ranked, (previous_key, replica.index))
        if at < len(ranked) and ranked[at][2] is replica:
            del ranked[at]
            insort(ranked, (replica.order_key, replica.index, replica))

    def best(self, count: int) -> list[Replica]:
        """Up to `count` replicas with the least work ahead; those without room (key inf) are left out."""
        return [replica for key, _, replica in self._sorted[:count] if key != inf]
