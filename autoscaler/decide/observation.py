"""Demand as it is observed, and what of it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

_LARGEST = 1e15
"""No rate, time or count of a fleet is larger; what is came from an overflow somewhere."""


class Quality(StrEnum):
    """Whether a number may be used."""

    OK = "ok"
    MISSING = "missing"
    STALE = "stale"
    INVALID = "invalid"
    """NaN, infinite, negative, absurdly large, or from the future."""


@dataclass(frozen=True, slots=True)
class PoolDemand:
    """Offered demand of one pool at one instant: served, queued and refused alike. None: not known."""

    at: float
    """Monotonic instant of the reading."""
    requests_per_s: float | None = None
    """Mean over `window_s`, as are all rates."""
    window_s: float = 60.0
    prompt_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    in_flight: float | None = None
    """Requests at replicas."""
    queued: float | None = None
    """Requests that wait in the balancer."""
    held: float | None = None
    """Of those, how many wait because there is no replica at all."""
    backlog_s: float | None = None
    """Predicted time until the ready replicas have finished all of it."""
    offered_total: float | None = None
    """Requests since the balancer's start; never falls but when that restarts."""
    missed_total: float | None = None
    """Of those, past the objective: late, slow or refused."""
    served_per_s: float | None = None
    """Answers that ended in the window."""
    speed_per_s: float | None = None
    """Units of demand a second that one replica could serve by the balancer's model of its speed."""
    gpu_utilization: float | None = None
    kv_usage: float | None = None
    first_token_s: float | None = None
    """At the percentile that the shell measures; so are the next two."""
    inter_token_s: float | None = None
    latency_s: float | None = None


def judge(value: float | None, age_s: float, stale_s: float, *, most: float = _LARGEST) -> Quality:
    """Whether a non-negative number of this age can be believed."""
    if value is None:
        return Quality.MISSING
    if not isfinite(value) or value < 0.0 or value > most:
        return Quality.INVALID
    if age_s < -1.0:
        # A second of disagreement between clocks of one host is rounding; more is a reading that cannot be.
        return Quality.INVALID
    return Quality.STALE if age_s > stale_s else Quality.OK


@dataclass(frozen=True, slots=True)
class Reading:
    """A demand reading of which every number was judged. Numbers that cannot be believed are None."""

    units_per_s: float | None
    """Demand in the pool's unit."""
    values: Mapping[str, float]
    """Believable numbers by their name in PoolDemand."""
    bad: Mapping[str, Quality]
    """Why the others are not."""

    def get(self, name: str) -> float | None:
        return self.values.get(name)


_RATES = {"requests": "requests_per_s", "prompt_tokens": "prompt_tokens_per_s", "output_tokens": "output_tokens_per_s"}
_NUMBERS = (
    "requests_per_s", "prompt_tokens_per_s", "output_tokens_per_s", "in_flight", "queued", "held", "backlog_s",
    "offered_total", "missed_total", "served_per_s", "speed_per_s", "gpu_utilization", "kv_usage", "first_token_s",
    "inter_token_s", "latency_s",
)  # fmt: skip
_MOST = {"gpu_utilization": 1.0 + 1e-6, "kv_usage": 1.0 + 1e-6}
_NOTHING: Mapping[str, float] = {}


def read(demand: PoolDemand | None, unit: str, now: float, stale_s: float) -> Reading:
    """Judge every number of a reading."""
    if demand is None:
        return Reading(None, _NOTHING, dict.fromkeys(_NUMBERS, Quality.MISSING))
    age_s = now - demand.at
    values: dict[str, float] = {}
    bad: dict[str, Quality] = {}
    for name in _NUMBERS:
        value = getattr(demand, name)
        quality = judge(value, age_s, stale_s, most=_MOST.get(name, _LARGEST))
        if quality is Quality.OK:
            values[name] = value
        else:
            bad[name] = quality
    return Reading(values.get(_RATES[unit]), values, bad)
