"""The extension point for short-range predictions of demand, over the time that a replica takes to start."""

from __future__ import annotations

from typing import Protocol


class Predictor(Protocol):
    """One way to expect demand. Fed once a tick, asked once a tick; everything in the pool's unit per second."""

    def observe(self, rate: float, now: float) -> None:
        """The demand of the last minute, at monotonic instant `now`, which never goes back."""
        ...

    def expect(self, now: float, ahead_s: float) -> Expectation | None:
        """Demand in `ahead_s` seconds; None: nothing can be said."""
        ...


class Expectation(Protocol):
    """Demand to come, with its uncertainty."""

    def level(self, z: float) -> float:
        """Demand at a normal score: 0 the middle, 1.64 about the 95 % quantile. Never falls with `z`."""
        ...
