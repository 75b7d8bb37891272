"""What the balancer answers: decisions for the request at hand, effects for the shell to carry out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lb.errors import Reason

if TYPE_CHECKING:
    from lb.replica import Replica
    from lb.request import RequestInfo


class Outcome(StrEnum):
    """How one attempt at a replica ended. The label of the requests metric."""

    OK = "ok"
    CLIENT_CLOSED = "client_closed"
    CLIENT_ERROR = "client_error"
    """4xx from the replica, passed through; never a mark against it."""
    OVERLOADED = "overloaded"
    """429, or 503 with no sign of loading."""
    LOADING = "loading"
    """503 that says the model is still loading."""
    TERMINATING = "terminating"
    """A 5xx that says that the replica is shutting down, whatever its health endpoint says."""
    SERVER_ERROR = "server_error"
    """5xx from the replica."""
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    RESET = "reset"
    """Closed or reset before its answer was complete."""
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    WRITE_STALLED = "write_stalled"
    """The client stopped reading."""
    TRUNCATED = "truncated"
    """A stream that ended without its proper end."""
    INVALID = "invalid"
    """Not HTTP, or broken framing."""
    HUNG = "hung"
    """Taken back before its first byte from a replica that hangs, or that lost it while it hung."""
    ABORTED = "aborted"
    """Ended by Tidegate: shutdown grace or drain deadline passed."""


REPLICA_FAULTS = frozenset(
    {
        Outcome.TERMINATING,
        Outcome.SERVER_ERROR,
        Outcome.CONNECT_FAILED,
        Outcome.CONNECT_TIMEOUT,
        Outcome.RESET,
        Outcome.FIRST_BYTE_TIMEOUT,
        Outcome.IDLE_TIMEOUT,
        Outcome.TRUNCATED,
        Outcome.INVALID,
    }
)
"""Outcomes that count against the replica in passive health."""

CLIENT_SIDE = frozenset({Outcome.CLIENT_CLOSED, Outcome.CLIENT_ERROR, Outcome.WRITE_STALLED})
"""Outcomes that are the client's doing: no miss, unless it left because it waited in vain."""


class TicketState(StrEnum):
    """Where a ticket is in its life."""

    QUEUED = "queued"
    ROUTED = "routed"
    FINISHED = "finished"


class Ticket:
    """One request's life in the balancer. Made by `offer`, ended exactly once by `finish` (or by a Rejected effect).

    The shell writes only the three fields of the stream: `events`, `bytes_out`, `progress_at`; they are plain
    attributes because they change with every chunk.
    """

    __slots__ = (
        "attempts", "bytes_out", "cached_tokens", "core", "events", "excluded", "first_byte_at", "info", "offered_at",
        "output_tokens", "owner", "predicted_s", "progress_at", "prompt_tokens", "reason", "replica", "routed_at",
        "state",
    )  # fmt: skip

    def __init__(self, info: RequestInfo, state: TicketState, offered_at: float) -> None:
        self.info = info
        self.state = state
        self.offered_at = offered_at
        self.replica: Replica | None = None
        self.reason = ""
        """Main reason of the routing decision in one word or two, for the access log."""
        self.routed_at = 0.0
        self.first_byte_at = 0.0
        self.attempts = 0
        self.excluded: tuple[str, ...] = ()
        """Ids of replicas already tried."""
        self.prompt_tokens = 0.0
        """Estimate."""
        self.cached_tokens = 0.0
        """Estimate of prompt tokens that the chosen replica has in its prefix cache."""
        self.output_tokens = 0.0
        """Expected, all choices."""
        self.predicted_s = 0.0
        """Predicted time to the end of the answer, when routed."""
        self.events = 0
        """Stream events that were progress (comments and pings are not)."""
        self.bytes_out = 0
        self.progress_at = 0.0
        self.owner: object | None = None
        """The handler that waits for it; opaque to the core."""
        self.core: object | None = None
        """The balancer's own bookkeeping; opaque to the shell."""


@dataclass(slots=True)
class Routed:
    """Send it to `ticket.replica` now. Not frozen, as every request makes one; nobody writes to it."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Queued:
    """Wait: a Routed or Rejected effect for this ticket will come, unless `finish` is called first."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Rejected:
    """Answer it with `status`. As the effect of a queued ticket, `ticket` is set and already finished."""

    reason: Reason
    status: int
    message: str
    retry_after_s: float | None = None
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """End this routed request now with an error (drain deadline passed); the shell then calls `finish`."""

    ticket: Ticket
    reason: Reason


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Nothing will come of this routed request where it is: `retry` it. Where that gives None it waits on."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class ReplicaChanged:
    """A replica moved between states; for the log and the counters."""

    replica_id: str
    previous: str
    current: str
    reason: str


Decision = Routed | Queued | Rejected
Effect = Routed | Rejected | Abort | Withdraw | ReplicaChanged
Effects = tuple[Effect, ...] | list[Effect]
NO_EFFECTS: tuple[Effect, ...] = ()
