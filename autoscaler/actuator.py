"""What starts and ends replicas: the contract of every actuator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from autoscaler.action import Action
from autoscaler.fleet import PoolFleet, ReplicaFact
from lb.endpoint import Endpoint


class ActuatorError(Exception):
    """An action or an observation failed. The text is for people: what was tried, what came back, what to do.

    `retry_after_s` is the least time before the same should be tried again; None: at the next tick.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Observed:
    """One replica as its actuator sees it. What only the balancer knows (work, draining) is joined by the loop."""

    fact: ReplicaFact
    endpoint: Endpoint | None = None
    """Where it answers; its id is `fact.id`. None: not known (yet), or the balancer finds it by other means."""
    detail: str = ""
    """For people: why it failed, or what it waits for."""


@dataclass(frozen=True, slots=True)
class Observation:
    """All replicas of a pool at one instant, as their actuator sees them."""

    at: float
    """Monotonic instant."""
    replicas: tuple[Observed, ...] = ()
    complete: bool = True
    """False: parts could not be asked; what is missing may exist."""
    wanted_by_others: int | None = None
    """Number of replicas that somebody else asks for; None: nobody."""
    full: frozenset[str] = field(default_factory=frozenset)
    """Kinds of which no more are to be had at present."""

    def fleet(self) -> PoolFleet:
        """Without the endpoints."""
        facts = tuple(one.fact for one in self.replicas)
        return PoolFleet(self.at, facts, self.complete, self.wanted_by_others, self.full)


class Actuator(Protocol):
    """Replicas of one pool. Made by the daemon with the pool's settings; used from one task at a time.

    Every call ends within its own deadline and is safe to repeat: a start is known by its name, everything else by its
    replica. An actuator decides nothing, and never ends a replica that it was not told to end: not when it is closed
    and not when it starts anew, for the replicas outlive the process.
    """

    async def observe(self) -> Observation:
        """What is there now. ActuatorError if nothing could be asked at all."""
        ...

    async def apply(self, action: Action) -> None:
        """Carry out one action, or begin to; what came of it shows in later observations.

        `Drain` and `Undrain` are for those that must tell somebody beside the balancer (which the loop tells first).
        """
        ...

    async def close(self) -> None:
        """Let go of clients and watchers. Replicas stay."""
        ...
