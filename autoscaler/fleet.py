"""What is observed of the replicas: facts with their age. None: not known, which is not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Stage(StrEnum):
    """Milestones of a start, in their order."""

    REQUESTED = "requested"
    NODE = "node"
    """The node is there."""
    GPU = "gpu"
    """Its GPUs can be allocated, which a ready node does not mean."""
    IMAGE = "image"
    WEIGHTS = "weights"
    """The model is in GPU memory."""
    WARM = "warm"
    """It answers at full speed."""


STAGES = tuple(Stage)
_NO_STAGES: Mapping[Stage, float] = MappingProxyType({})


class Phase(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    """Gets no new work and finishes what it has."""
    STOPPING = "stopping"
    FAILED = "failed"
    """Started and failed, or ended by itself; nothing will come of it."""


@dataclass(frozen=True, slots=True)
class ReplicaFact:
    """One replica as the actuator and the balancer see it."""

    id: str
    phase: Phase
    kind: str = "default"
    start_id: str | None = None
    """Name under which the controller asked for it; None: somebody else's, or the actuator keeps no names."""
    stages: Mapping[Stage, float] = field(default_factory=lambda: _NO_STAGES, hash=False)
    """Monotonic instants at which milestones were reached."""
    since_s: float | None = None
    """Monotonic instant of the present phase's begin."""
    in_flight: int | None = None
    work_left_s: float | None = None
    """Predicted time until what it has is finished."""
    cache_value: float | None = None
    """What would be lost with its caches, in prompt tokens; only the order counts."""
    protected: bool = False
    """Must not be removed (an operator's mark, a disruption budget)."""


@dataclass(frozen=True, slots=True)
class PoolFleet:
    """The replicas of one pool at one instant."""

    at: float
    """Monotonic instant of the observation."""
    replicas: tuple[ReplicaFact, ...] = ()
    complete: bool = True
    """False: parts could not be asked. What is missing may exist."""
    wanted_by_others: int | None = None
    """Number of replicas that somebody else has asked for (a human, another autoscaler); None: nobody."""
    full: frozenset[str] = frozenset()
    """Kinds of which no more are to be had at present (stock, quota, no free GPU)."""

    def count(self, *phases: Phase) -> int:
        return sum(replica.phase in phases for replica in self.replicas)


Fleet = Mapping[str, PoolFleet]
"""By pool name. A pool that is absent was not observed."""
