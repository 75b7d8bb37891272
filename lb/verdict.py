"""What the end of an attempt says of its replica: passive health, back-off when it is overloaded, warm-up."""

from __future__ import annotations

from lb.effects import REPLICA_FAULTS, Effect, Outcome, Ticket
from lb.fleet import Fleet
from lb.health.lifecycle import LifeEvent
from lb.learning import SILENT
from lb.ledger import Entry
from lb.replica import Replica, ReplicaState
from lb.request import Usage
from lb.retry import UNSENT
from lb.settings import LbSettings
from lb.watch import Watch

OVERLOAD_S = 1.0
"""First rest of a replica that says 429 or 503 and not for how long."""
OVERLOAD_MAX_S = 30.0
HOLLOW_FACTOR = 10.0
"""An empty answer this many times faster than predicted is no answer: a replica that fails fast and says 200 looks idle
and would draw all traffic."""
HOLLOW_STREAM_EVENTS = 2
"""A finish reason and `[DONE]`."""
HOLLOW_STREAM_BYTES = 512
"""A stream without progress within this size holds no more than a chunk with a finish reason (some 250 bytes), an end
mark and comments."""


class Verdict:
    """Judges replicas by how attempts end. 4xx never count, nor what clients do."""

    __slots__ = ("_fleet", "_settings", "_watch")

    def __init__(self, settings: LbSettings, fleet: Fleet, watch: Watch) -> None:
        self._settings = settings
        self._fleet = fleet
        self._watch = watch

    def reconfigure(self, settings: LbSettings) -> None:
        self._settings = settings

    def success(
        self, replica: Replica, ticket: Ticket, entry: Entry, usage: Usage | None, now: float, effects: list[Effect]
    ) -> bool:
        """A complete answer. False: it was hollow, and counts as a fault."""
        if _hollow(ticket, entry, usage, now):
            self._fault(replica, ticket, "empty answers, suspiciously fast", False, now, effects)
            return False
        replica.progress_at = now
        replica.overloads = 0
        replica.outlier.success()
        if replica.trial is ticket:
            replica.trial = None
            self._fleet.move(replica, LifeEvent.TRIAL_PASSED, "the trial request was answered", now, effects)
        return True

    def failure(
        self,
        replica: Replica,
        ticket: Ticket,
        entry: Entry,
        outcome: Outcome,
        status: int,
        retry_after_s: float | None,
        now: float,
        effects: list[Effect],
    ) -> None:
        """Any other end."""
        if outcome in REPLICA_FAULTS:
            if outcome is Outcome.SERVER_ERROR and entry.server_errors:
                # Another replica said 5xx to the same request: the request is at fault, and no replica.
                for other in entry.server_errors:
                    other.outlier.forgive()
                self._reopen(replica, ticket, now)
                return
            if outcome is Outcome.TERMINATING and replica.state is ReplicaState.READY:
                # One word of it is enough: it will not get better by asking four times more.
                self._fleet.eject(replica, "it answers that it is shutting down", now, effects)
                return
            self._fault(
                replica, ticket, f"{outcome} {status or ''}".strip(), outcome is Outcome.SERVER_ERROR, now, effects
            )
            if outcome in UNSENT and replica.outlier.refusal(now):
                self._watch.refused(replica, now, effects)
            if outcome is Outcome.SERVER_ERROR:
                entry.server_errors = (*entry.server_errors, replica)
            return
        if outcome is Outcome.LOADING:
            self._watch.loading(replica, "it answers that it is loading", now, effects)
        elif outcome is Outcome.OVERLOADED:
            self._rest(replica, retry_after_s, now)
        self._reopen(replica, ticket, now)

    def _fault(
        self, replica: Replica, ticket: Ticket, what: str, server_error: bool, now: float, effects: list[Effect]
    ) -> None:
        outlier = replica.outlier
        outlier.fault(server_error=server_error)
        if replica.trial is ticket:
            replica.trial = None
            self._fleet.eject(replica, f"the trial request failed: {what}", now, effects)
            self._fleet.recount(replica, now)
        elif outlier.faults >= self._settings.health.failures and replica.state is ReplicaState.READY:
            self._fleet.eject(replica, f"{outlier.faults} faults in a row, the last: {what}", now, effects)

    def _rest(self, replica: Replica, retry_after_s: float | None, now: float) -> None:
        """It has enough: nothing new for a moment, longer each time that it says so with nothing of ours to do."""
        replica.overloads = replica.overloads + 1 if not replica.in_flight else 0
        rest_s = OVERLOAD_S if retry_after_s is None else max(0.0, retry_after_s)
        rest_s = min(OVERLOAD_MAX_S, rest_s * 2.0 ** min(max(0, replica.overloads - 1), 10))
        replica.overloaded_until = max(replica.overloaded_until, now + rest_s)
        self._fleet.recount(replica, now)

    def _reopen(self, replica: Replica, ticket: Ticket, now: float) -> None:
        """A trial that proved nothing leaves room for the next."""
        if replica.trial is ticket:
            replica.trial = None
            self._fleet.recount(replica, now)


def _hollow(ticket: Ticket, entry: Entry, usage: Usage | None, now: float) -> bool:
    """Whether a 200 had no content, far too soon, where content was asked for."""
    info = ticket.info
    if entry.output <= 0.0 or info.surface in SILENT:
        return False
    if usage is not None and usage.output_tokens:
        return False
    if info.stream:
        empty = ticket.events <= HOLLOW_STREAM_EVENTS and ticket.bytes_out <= HOLLOW_STREAM_BYTES
    else:
        empty = not ticket.bytes_out
    return empty and (now - ticket.routed_at) * HOLLOW_FACTOR < entry.predicted_s
