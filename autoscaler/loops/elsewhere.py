"""What balancers elsewhere say of replicas, put beside what our own knows: pure.

A controller apart from the balancers sends nothing to the replicas: what runs on them, how fast they are, and whether a
drain has arrived, only the others know. A replica is the same where its id is the same, which for pods is their UID.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from lb.cost.replica_model import Coefficients
from lb.views import ReplicaView

LEFT_ALONE = frozenset({"draining"})
"""States of a balancer in which a replica gets nothing new whatever its probes bring."""


class ToldReplica(msgspec.Struct, frozen=True):
    """A replica as another balancer sees it; numbers that are not finite are null."""

    id: str
    state: str
    in_flight: int = 0
    abandoned: int = 0
    predicted_backlog_s: float | None = None
    prefix_blocks: int = 0
    coefficients: dict[str, Any] | None = None


class _Replicas(msgspec.Struct):
    replicas: tuple[ToldReplica, ...]


def read_replicas(body: bytes) -> tuple[ToldReplica, ...]:
    """The replicas in an answer of `/v1/replicas`. Raises msgspec.MsgspecError for anything else."""
    return msgspec.json.decode(body, type=_Replicas).replicas


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float
    replicas: dict[str, ToldReplica]


@dataclass(slots=True)
class Elsewhere:
    """The last answer of each balancer. `stale_s`: age from which it says nothing any more."""

    stale_s: float
    _answers: dict[str, _Answer] = field(default_factory=dict)

    def take(self, place: str, replicas: Iterable[ToldReplica], now: float) -> None:
        """What one balancer says; a replica may be listed there a second time while it empties."""
        known: dict[str, ToldReplica] = {}
        for one in replicas:
            twin = known.get(one.id)
            known[one.id] = one if twin is None else _both(twin, one)
        self._answers[place] = _Answer(now, known)

    def keep(self, places: Iterable[str]) -> None:
        """Those that exist; the others are gone, and what they had with them."""
        wanted = set(places)
        self._answers = {place: one for place, one in self._answers.items() if place in wanted}

    def merged(self, view: ReplicaView, now: float) -> ReplicaView:
        """Our own view of a replica with the work of all balancers on it, and the speed that the one knows that has
        seen most of it."""
        told = [
            one.replicas[view.id]
            for one in self._answers.values()
            if now - one.at <= self.stale_s and view.id in one.replicas
        ]
        if not told:
            return view
        theirs = sum(one.in_flight for one in told)
        speeds = [view.coefficients, *(speed for one in told if (speed := _speed(one)) is not None)]
        return replace(
            view,
            in_flight=view.in_flight + theirs,
            # What our readings of the runtime show beside our own is theirs, and counted already.
            foreign=max(0.0, view.foreign - theirs),
            abandoned=view.abandoned + sum(one.abandoned for one in told),
            predicted_backlog_s=view.predicted_backlog_s + sum(one.predicted_backlog_s or 0.0 for one in told),
            prefix_blocks=max(view.prefix_blocks, *(one.prefix_blocks for one in told)),
            coefficients=max(speeds, key=_lessons),
        )

    def keeps(self, replica: str, places: Iterable[str], now: float) -> str:
        """Why this replica must not be ended whatever runs on it: somebody still sends it requests, or may."""
        for place in places:
            answer = self._answers.get(place)
            if answer is None or now - answer.at > self.stale_s:
                return f"the balancer {place} does not say whether it still sends it requests"
            told = answer.replicas.get(replica)
            if told is not None and told.state not in LEFT_ALONE:
                return f"the balancer {place} has not heard of its drain and still sends it requests"
        return ""


def _both(one: ToldReplica, other: ToldReplica) -> ToldReplica:
    """The same replica twice at one balancer: work adds up, and the one that may get more counts."""
    open_one = other if one.state in LEFT_ALONE else one
    return msgspec.structs.replace(
        open_one, in_flight=one.in_flight + other.in_flight, abandoned=one.abandoned + other.abandoned
    )


def _speed(told: ToldReplica) -> Coefficients | None:
    """None: it is not told, or not in a way that is understood here."""
    known = Coefficients.__dataclass_fields__
    given = {name: value for name, value in (told.coefficients or {}).items() if name in known}
    try:
        return msgspec.convert(given, Coefficients)
    except msgspec.ValidationError:
        return None


def _lessons(speed: Coefficients) -> int:
    return speed.first_tokens + speed.steps
