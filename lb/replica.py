"""One replica as the balancer sees it: what discovery said, what it said itself, and what we sent it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING

from lb.cost.replica_model import ReplicaModel
from lb.endpoint import Endpoint
from lb.health.outlier import Outlier
from lb.health.probes import ProbeCount
from lb.health.warmup import Ramp
from lb.routing.form import NO_FORM, NO_SHAPE, Form, KeptForm, Shape
from lb.runtime import RuntimeLoad

if TYPE_CHECKING:
    from lb.effects import Ticket
    from lb.explain import Candidate
    from lb.roster import Roster


class ReplicaState(StrEnum):
    """Where a replica is in its life; `lb.health.lifecycle` has the transitions."""

    JOINING = "joining"
    """Known, not (or not again) ready: not probed yet, starting or loading its model."""
    READY = "ready"
    EJECTED = "ejected"
    """Its answers were bad: no work until its time is over."""
    TRIAL = "trial"
    """Half open after an ejection: one request at a time decides."""
    FAILED = "failed"
    """Probes fail, connections are refused, or its GPU is lost."""
    DRAINING = "draining"
    """Leaving: finishes what it has, gets nothing new."""
    GONE = "gone"


class GpuState(StrEnum):
    """What the GPUs under a replica allow; the worst of them counts."""

    OK = "ok"
    DEGRADED = "degraded"
    """Works, slower or with little memory left."""
    UNKNOWN = "unknown"
    """Its readings are too old or have failed: neutral, and shown."""
    DRAIN = "drain"
    """It must be reset or repaired: nothing new, what runs on it may end."""
    LOST = "lost"
    """Fell off the bus or had a fatal error: nothing can run on it."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """The state of the GPUs under one replica, the worst of them counts."""

    state: GpuState = GpuState.OK
    headroom_ratio: float | None = None
    """Free share of GPU memory; None: not known. Runtimes that reserve memory ahead leave little on purpose."""
    speed_ratio: float | None = None
    """Clock now over the clock that the card can hold, 1.0: not throttled; None: not known."""
    reason: str = ""
    """For people: `thermal throttle`, `XID 79`."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Coefficients of the speed model, copied here after each lesson because every decision reads them."""

    prefill_s: float
    """Fixed part of a prompt."""
    token_s: float
    """Per uncached prompt token."""
    token2_s: float
    """Per square of it (attention)."""
    step_s: float
    """Fixed part of a decode step."""
    running_s: float
    """Added to a step by each running request."""
    context_s: float
    """Added to a step by each token of context."""


def pace_of(speed: ReplicaModel) -> Pace:
    known = speed.coefficients
    return Pace(
        known.prefill_fixed_s,
        known.prefill_s_per_token,
        known.prefill_s_per_token2,
        known.step_fixed_s,
        known.step_s_per_running,
        known.step_s_per_context_token,
    )


@dataclass(slots=True, eq=False, repr=False)
class Replica:
    """Mutable state of one replica, written by the balancer's rooms alone.

    The ledger's sums (`in_flight` to `kv_tokens`) are kept by `lb.ledger`, one change at a time.
    """

    endpoint: Endpoint
    speed: ReplicaModel
    pace: Pace
    index: int = 0
    """Its bit in the prefix index, reused after it is gone."""
    state: ReplicaState = ReplicaState.JOINING
    reason: str = "not probed yet"
    since: float = 0.0
    """When it came into this state."""
    drained: bool = False
    """An operator took it out, and only an operator takes it back. A replica that drains and is neither drained nor
    retired does so for its GPU's sake."""
    retired: bool = False
    """Discovery no longer lists it: gone as soon as it is empty."""
    models: tuple[str, ...] | None = None
    """What it serves; None: not known yet, any model."""
    runtime: str | None = None
    any_model: bool = False
    """Its runtime holds one model and answers to any name of it."""
    abandons: bool = False
    """Its runtime works on after the client of a unary request left."""

    tickets: dict[Ticket, None] = field(default_factory=dict)
    """Routed here and not finished, oldest first."""
    in_flight: int = 0
    waiting: int = 0
    """Streams sent whose first byte has not come."""
    waiting_tokens: float = 0.0
    """Their uncached prompt tokens."""
    waiting_tokens2: float = 0.0
    unary: int = 0
    """Requests in flight that answer in one piece: their progress cannot be seen, only reckoned."""
    unary_tokens: float = 0.0
    """Output tokens that these are expected to have left."""
    stream_tokens: float = 0.0
    """Output tokens that the streams are expected to have left."""
    kv_tokens: float = 0.0
    """KV tokens that all of them will hold at their end."""
    decayed_at: float = 0.0
    free_at: float = 0.0
    """When it is expected to have computed every prompt sent to it."""
    abandoned: list[float] = field(default_factory=list)
    """When requests whose clients left are expected to end there, ascending."""

    load: RuntimeLoad | None = None
    load_at: float = -inf
    load_misses: int = 0
    foreign: float = 0.0
    """Requests of others in it: the smaller of the last two readings less our own, as one reading is not a fact."""
    foreign_seen: float = 0.0
    slots: int | None = None
    """Requests that it runs at once, told or learned."""
    full_at: float | None = None
    """Requests it ran while others waited inside it, if it is full now (its KV memory may hold less than its slots)."""
    full_seen: int = 0
    """Readings in a row that found requests waiting."""
    spare_seen: int = 0
    """Readings in a row that found none waiting, with as many of ours in it as its learned slots allow."""
    limit: int = 1
    """Most requests of ours in flight, foreign ones taken off; what 'room' means."""
    kv_left: float = inf
    """KV tokens not spoken for; inf: not known."""
    gpu: GpuReading | None = None

    dirty: bool = False
    """The shape below no longer fits the sums above."""
    changed: list[Replica] = field(default_factory=list)
    """The router's list of replicas whose shape is out of date, shared by all."""
    shape: Shape = NO_SHAPE
    """Weighted sum of all forms, with the batch that it speaks of."""
    settled: bool = False
    """Whether the standing forms below are up to date."""
    standing_sum: Form = NO_FORM
    standing: tuple[Form, ...] = ()
    """Forms of the scorers that change only with observations, in the router's order."""
    live: Sequence[KeptForm] = ()
    """Forms of the scorers that change with every request."""
    seen: Candidate | None = None
    """What decisions note of it, made by the first since the shape was renewed."""
    order_key: float = inf
    """Its place in the order of work of its pools."""
    rosters: list[Roster] = field(default_factory=list)

    probes: ProbeCount = field(default_factory=ProbeCount)
    outlier: Outlier = field(default_factory=Outlier)
    ramp: Ramp | None = None
    """Set while it warms up."""
    trial: Ticket | None = None
    progress_at: float = 0.0
    """When it last showed life: a token, an answer, or its own counters rising."""
    silent_at: float = -inf
    """When it was last seen to give no token although streams run on it and no prompt should hold them up."""
    progress_tokens: float = 0.0
    """Its token counters at the last reading."""
    drain_at: float | None = None
    """When a drain's patience ends."""
    tokens_per_event: float = 1.0
    """Output tokens in one stream event, learned from usage."""
    cache_trust: float = 1.0
    """Share of the prefix hits promised by our index that its usage confirmed."""
    routed_total: int = 0
    prompt_tokens_total: float = 0.0
    learned_at: float = -inf
    """Last lesson that counts against the pace of lessons."""
    taught_at: float = 0.0
    """When its speed was last learned."""
    overloaded_until: float = -inf
    """It said 429 or 503: no more than it has until then."""
    overloads: int = 0
    """Such answers in a row."""

    def __repr__(self) -> str:
        return f"<Replica {self.id} {self.state}: {self.in_flight} of {self.limit} in flight>"

    @property
    def id(self) -> str:
        return self.endpoint.id

    @property
    def selectable(self) -> bool:
        return self.state is ReplicaState.READY or self.state is ReplicaState.TRIAL

    @property
    def output_tokens_left(self) -> float:
        return self.stream_tokens + self.unary_tokens
