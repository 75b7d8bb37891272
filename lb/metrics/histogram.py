"""Histograms as plain lists: observing costs a bisection and two additions, and the text is made when asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

# `tuple[float, ...]`: of a tuple of known length a compiled module makes a new object at every use.
LATENCY_S: tuple[float, ...] = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0,
    120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip
"""From an embedding to an hour of reasoning; dense where objectives for the first token lie (0.2 to 10 s)."""
GAP_S: tuple[float, ...] = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1.0, 2.5, 5.0, 10.0, 60.0, 3600.0,
)  # fmt: skip
"""Between tokens: 1,000 tokens/s to a stalled stream; dense around the usual 20 to 100 ms."""
RATIO: tuple[float, ...] = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Actual over predicted, even on both sides of 1 in logarithms."""
PAUSE_S: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0, 3600.0)
"""Of the event loop and the garbage collector; 10 ms is where a pause shows in a token gap."""


class Histogram:
    """Counts per bucket and the sum. `counts` has one entry more than `bounds`, for what is above all of them."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Histogram:
        twin = Histogram(self.bounds)
        twin.counts[:] = self.counts
        twin.sum = self.sum
        return twin

    def buckets(self) -> list[tuple[str, float]]:
        """(`le`, cumulative count) pairs as the exposition format wants them, `+Inf` last."""
        labels = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(labels, map(float, accumulate(self.counts)), strict=True))
