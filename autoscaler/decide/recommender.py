"""The extension point for reasons to want replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autoscaler.decide.lead_time import LeadTime
from autoscaler.decide.observation import Reading
from autoscaler.decide.outlook import Outlook
from autoscaler.policy.pools import PoolSettings


@dataclass(frozen=True, slots=True)
class Situation:
    """What a recommender may know at one tick."""

    settings: PoolSettings
    reading: Reading
    ready: float
    """Ready capacity, in reference replicas (speed 1)."""
    supply: float
    """Ready and starting capacity: what will be there without doing anything."""
    per_replica: float | None
    """Units of demand a second that a reference replica serves; None: not known yet."""
    lead: LeadTime
    outlook: Outlook | None
    objective: float
    """Share of misses to aim at."""
    now: float
    wall: float | None
    """Epoch seconds, for schedules only."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one source wants, in reference replicas."""

    source: str
    want: float
    """At once."""
    keep: float | None
    """The least it agrees to; None: it cannot judge, and so agrees to nothing less than what is there."""
    reason: str
    stride: float = 0.0
    """Where to go, to the nearest whole replica, if `want` is more than there is: a source that expects to want more
    soon goes there in one step."""

    def scaled(self, factor: float) -> Proposal:
        """The same in replicas of another size."""
        keep = None if self.keep is None else self.keep * factor
        return Proposal(self.source, self.want * factor, keep, self.reason, self.stride * factor)


class Recommender(Protocol):
    """One source. Asked once a tick, may remember."""

    def propose(self, situation: Situation) -> Proposal: ...
