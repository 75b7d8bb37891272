"""Demand stays as it is: what every reactive policy believes, and the yardstick for the rest."""

from __future__ import annotations

from math import log

from autoscaler.decide.spread import Lognormal, Spread, floor_rate


class LastValue:
    """Expects what is."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._spread = Spread()

    def observe(self, rate: float, now: float) -> None:
        self._rate = rate
        self._spread.actual(rate, now)

    def expect(self, now: float, ahead_s: float) -> Lognormal | None:
        if self._rate is None:
            return None
        mean = log(floor_rate(self._rate))
        self._spread.predicted(mean, now, ahead_s)
        return Lognormal(mean, self._spread.sigma)
