"""Readings as they come in bad weather: 1 % missing, one outage of ten minutes and one burst of NaN a day."""

from __future__ import annotations

import random
from dataclasses import replace
from math import nan

from autoscaler.sim.policy import Policy, Reading
from autoscaler.sim.roster import Roster

_MISSING = 0.01
_OUTAGE_S = 600.0
_BURST_S = 120.0
_DAY_S = 86_400.0


def _all(reading: Reading, value: float | None) -> Reading:
    """The reading with every number replaced."""
    return replace(
        reading, in_flight=value, queued=value, requests_per_s=value, served_per_s=value, offered_total=value,
        missed_total=value,
    )  # fmt: skip


class Disturbed:
    """A policy that is given disturbed readings. What really happens is not disturbed."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self.name = policy.name
        self.tick_s = policy.tick_s
        self.start = policy.start
        self.stops = policy.stops
        self._policy = policy
        self._seed = seed
        self._rng = random.Random(seed)

    def tick(self, reading: Reading, roster: Roster) -> None:
        """Pass on what is left of the reading."""
        state = self.weather(reading.now)
        if state == "outage" or self._rng.random() < _MISSING:
            reading = _all(reading, None)
        elif state == "nan":
            reading = _all(reading, nan)
        self._policy.tick(reading, roster)

    def weather(self, now: float) -> str:
        """`outage`, `nan` or nothing, at instants of the day that differ from day to day."""
        day = int(now // _DAY_S)
        rng = random.Random(self._seed * 100_003 + day)
        outage, burst = (day * _DAY_S + rng.uniform(0.0, _DAY_S - _OUTAGE_S) for _ in range(2))
        if outage <= now < outage + _OUTAGE_S:
            return "outage"
        return "nan" if burst <= now < burst + _BURST_S else ""
