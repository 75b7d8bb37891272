"""How wrong a prediction usually is, right now: bursty hours need more room than calm ones."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp, log, sqrt

_QUIET_S = 1200.0
"""Memory of squared errors: restless hours come suddenly. On the series of `make bench-scaling` 20 min, 1 h and 4 h
differ by at most 2 % in GPU-hours at equal misses, in this order."""
_CALM_S = 2 * 86_400.0
"""Memory of the usual level of errors, to which an hour's estimate is drawn."""
_DRAWN = 0.25
"""Weight of the usual level."""
_PRIOR_SIGMA = 0.12
_LEAST_SIGMA = 0.01
_MOST_ERROR = 1.0
"""Errors beyond a factor of e are events, not spread; counted whole they would widen the band for hours."""
LEAST_RATE = 1e-6
"""Rates under this are no demand: logarithms need a floor."""


def floor_rate(rate: float) -> float:
    return max(rate, LEAST_RATE)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Demand expected around exp(mean), with a standard deviation of its logarithm."""

    mean: float
    sigma: float

    def level(self, z: float) -> float:
        return exp(self.mean + z * self.sigma)


class Spread:
    """Standard deviation of the logarithm of (what came / what was predicted), from predictions that came due."""

    __slots__ = ("_at", "_due", "_long", "_short")

    def __init__(self) -> None:
        self._due: deque[tuple[float, float]] = deque()
        self._short = self._long = _PRIOR_SIGMA**2
        self._at: float | None = None

    @property
    def sigma(self) -> float:
        return max(_LEAST_SIGMA, sqrt((1.0 - _DRAWN) * self._short + _DRAWN * self._long))

    def predicted(self, mean: float, now: float, ahead_s: float) -> None:
        """A prediction of the logarithm of demand at `now + ahead_s`."""
        due = now + ahead_s
        if not self._due or due > self._due[-1][0]:
            self._due.append((due, mean))

    def actual(self, rate: float, now: float) -> None:
        """What demand is. Of predictions that are due, the newest counts."""
        mean: float | None = None
        while self._due and self._due[0][0] <= now:
            mean = self._due.popleft()[1]
        if mean is None:
            return
        passed = 15.0 if self._at is None else min(600.0, max(0.0, now - self._at))
        self._at = now
        error = log(floor_rate(rate)) - mean
        square = min(error * error, _MOST_ERROR)
        self._short += (1.0 - exp(-passed / _QUIET_S)) * (square - self._short)
        self._long += (1.0 - exp(-passed / _CALM_S)) * (square - self._long)
