"""Demand as it is now, growing as the forecast grows: the forecast knows the course of the day, the last minute knows
where demand is today."""

from __future__ import annotations

from math import log

from autoscaler.decide.outlook import Outlook
from autoscaler.decide.spread import Lognormal, Spread, floor_rate

_MOST = 2.0
"""Greatest growth, and its inverse the least: a start-up takes minutes, in which a course of the day does no more."""


class Growth:
    """The last value, times what the forecast's middle does over the horizon."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._spread = Spread()

    def observe(self, rate: float, now: float) -> None:
        self._rate = rate
        self._spread.actual(rate, now)

    def expect(self, now: float, ahead_s: float, outlook: Outlook) -> Lognormal | None:
        """`outlook` must be valid and reach beyond `now`."""
        if self._rate is None:
            return None
        here, there = outlook.at(0.0, 0.5, now), outlook.at(ahead_s, 0.5, now)
        growth = min(_MOST, max(1.0 / _MOST, floor_rate(there) / floor_rate(here)))
        mean = log(floor_rate(self._rate) * growth)
        self._spread.predicted(mean, now, ahead_s)
        return Lognormal(mean, self._spread.sigma)
