"""What the controller asks actuators to do.

Every action may be carried out twice without harm: a start is known by its name, everything else by its replica.
`total` is the number of replicas that should exist afterwards, for actuators that only know a number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """Start replicas of one kind, one per name. A name that exists already is not started again."""

    pool: str
    kind: str
    start_ids: tuple[str, ...]
    total: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Cordon the replica at the balancer: no new work, what runs goes on."""

    pool: str
    replica: str
    deadline_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Undrain:
    """Take a draining replica back: it is wanted again and is warm."""

    pool: str
    replica: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End a replica that nothing runs on (or whose time is over, or that failed), and give its place back."""

    pool: str
    replica: str
    total: int
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End a start that is of no more use: it takes too long, or is no longer wanted.

    An actuator that finds it ready by now leaves it alone: it may have requests, and goes through a drain.
    `replica` is the observed replica, None if the start was never seen; `start_id` its name, None for a stranger.
    """

    pool: str
    start_id: str | None
    replica: str | None
    total: int
    reason: str


Action = ScaleUp | Drain | Undrain | Stop | GiveUp
