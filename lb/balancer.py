"""The balancer without I/O: requests, observations and time go in; decisions and effects come out.

One writer, no locks, never awaits. `offer`, `first_byte`, `progress` and `finish` are the hot path and take
microseconds. Every ticket is finished exactly once: by `finish`, or by a Rejected effect that carries it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from math import inf

from lb.cost.output_length import OutputLengths
from lb.cost.tokens import TokenEstimator
from lb.effects import (
    CLIENT_SIDE,
    NO_EFFECTS,
    Effect,
    Effects,
    Outcome,
    Queued,
    Rejected,
    Routed,
    Ticket,
    TicketState,
)
from lb.endpoint import Endpoint
from lb.errors import Reason
from lb.explain import Explanation, Recent, Record, snapshot
from lb.fleet import Fleet
from lb.learning import Lessons, answered
from lb.ledger import Entry, abandon, book, first_byte, release, stream_left
from lb.replica import GpuReading, Replica, ReplicaState
from lb.request import RequestInfo, Usage
from lb.retry import UNSENT, RetryBudget, retriable
from lb.routing.pipeline import FEW, Router
from lb.runtime import ProbeResult, RuntimeLoad
from lb.settings import LbSettings
from lb.signals import Objective
from lb.summary import balancer_view, demand_view
from lb.verdict import Verdict
from lb.views import BalancerView, DemandView
from lb.waiting import WaitingRoom
from lb.watch import Watch


class Balancer:
    """The facade over routing, admission, health and cost.

    `abandons` names the runtimes that go on with a unary request after its client has left, `any_model` those that hold
    one model and answer to any name of it.
    """

    def __init__(
        self,
        settings: LbSettings,
        *,
        rng: random.Random,
        now: float,
        abandons: Mapping[str, bool] | None = None,
        any_model: frozenset[str] = frozenset(),
    ) -> None:
        changed: list[Replica] = []
        self.settings = settings
        self._recent = Recent()
        self._lessons = Lessons(TokenEstimator(settings.cost), OutputLengths(settings.cost))
        self._router = Router(settings.routing, rng, changed)
        self._fleet = Fleet(settings, self._router, changed, abandons or {}, any_model, now)
        self._watch = Watch(settings, self._fleet)
        self._verdict = Verdict(settings, self._fleet, self._watch)
        self._waiting = WaitingRoom(settings, self._fleet, self._router, self._recent)
        self._budget = RetryBudget(settings.retries, now)
        self._pending: list[Effect] = []
        """Effects that arose where none could be returned; the next call that returns effects brings them."""
        self._closing = False
        self._record_scores = settings.routing.strategy == "tidegate"

    # ------------------------------------------------------------------ requests

    def offer(self, info: RequestInfo, now: float, owner: object | None = None) -> Routed | Queued | Rejected:
        """Decide on a new request. Routed and Queued open a ticket, Rejected does not."""
        pool = self._fleet.pools.find(info.model, now)
        if pool is None:
            return self._waiting.refusals.unknown_model(info)
        prompt, output = self._lessons.estimate(info)
        pool.signals.offer(prompt, now)
        self._budget.offered += prompt
        if self._closing:
            pool.signals.rejected_total += 1
            return self._waiting.refusals.closing()
        ticket = Ticket(info, TicketState.QUEUED, now)
        entry = Entry(pool, prompt, output, info.stream)
        ticket.core = entry
        ticket.owner = owner
        ticket.prompt_tokens = prompt
        ticket.output_tokens = output
        if not self._waiting.queue or not self._waiting.queue.depth(pool.key):
            replica = self._router.choose(ticket, entry, now)
            if replica is not None:
                late = info.deadline_at is not None and self._waiting.refusals.late(
                    replica, self._router, entry, info, now
                )
                if not late:
                    self._send(ticket, entry, replica, now, "")
                    return Routed(ticket)
                pool.signals.rejected_total += 1
                self._recent.note(ticket, entry, now, Reason.DEADLINE, self._router.weighing)
                return self._waiting.refusals.too_late(pool, now)
        return self._waiting.admit(ticket, entry, now)

    def first_byte(self, ticket: Ticket, now: float) -> None:
        """The first token of the answer has come."""
        ticket.first_byte_at = ticket.progress_at = now
        entry, replica = ticket.core, ticket.replica
        assert isinstance(entry, Entry)
        assert replica is not None
        if entry.unary:
            return
        observed_s = now - ticket.routed_at
        if entry.waits_prefill:
            if ticket.routed_at > replica.silent_at:
                self._lessons.first_byte(replica, entry, observed_s, now)
            ramp = replica.ramp
            if ramp is not None and ramp.observe(observed_s, self._router.first_byte_s(replica, entry)):
                self._fleet.warmup.learn(now - ramp.start)
                self._fleet.warm(replica)
                self._router.settle(replica)
        first_byte(replica, entry, now)

    def progress(self, ticket: Ticket, now: float) -> None:
        """A stream has gone on: what it has left is reckoned anew."""
        entry, replica = ticket.core, ticket.replica
        assert isinstance(entry, Entry)
        if replica is None or entry.unary or ticket.events <= entry.counted:
            return
        entry.counted = ticket.events
        replica.progress_at = now
        info = ticket.info
        seen = ticket.events * replica.tokens_per_event
        left = self._lessons.remaining(info, seen / info.choices if info.choices > 1 else seen)
        stream_left(replica, entry, left)

    def retry(
        self, ticket: Ticket, outcome: Outcome, now: float, *, status: int = 0, retry_after_s: float | None = None
    ) -> Routed | Queued | Rejected | None:
        """Another try after a failed attempt of which the client saw nothing, on another replica.

        None: no retry; the ticket is still routed to the old replica, and `finish` must follow.
        """
        entry, old = ticket.core, ticket.replica
        assert isinstance(entry, Entry)
        assert ticket.state is TicketState.ROUTED
        assert old is not None
        settings = self.settings.retries
        if not retriable(outcome, status, old.outlier.server_errors + 1, settings):
            return None
        unsent = outcome in UNSENT
        if not unsent and entry.retries + 1 >= settings.attempts:
            return None
        excluded = ticket.excluded
        ticket.excluded = (*excluded, old.id)
        new = self._router.choose(ticket, entry, now)
        others = new is not None or any(
            one is not old and one.id not in excluded for one in entry.pool.roster.ready if one.selectable
        )
        waits = new is None and others and outcome is not Outcome.OVERLOADED
        if (new is None and not waits) or (not unsent and not self._budget.spend(entry.prompt, now)):
            ticket.excluded = excluded
            return None
        if not unsent:
            entry.retries += 1
        self._leave(ticket, entry, old, now)
        self._verdict.failure(old, ticket, entry, outcome, status, retry_after_s, now, self._pending)
        self._fleet.bury(old, now, self._pending)
        if new is not None:
            self._send(ticket, entry, new, now, "retry")
            return Routed(ticket)
        ticket.replica = None
        ticket.state = TicketState.QUEUED
        return self._waiting.admit(ticket, entry, now)

    def finish(
        self, ticket: Ticket, outcome: Outcome, now: float, *, status: int = 0, usage: Usage | None = None
    ) -> Effects:
        """The ticket's end, exactly once. The effects release requests that waited for its place."""
        entry = ticket.core
        assert isinstance(entry, Entry)
        assert ticket.state is not TicketState.FINISHED, "a ticket is finished once"
        replica = ticket.replica
        judge = entry.pool.signals.judge
        if replica is None:
            self._waiting.leave(ticket, entry)
            if judge is not None:
                judge.unanswered(now - ticket.offered_at, seen=False, faulty=False)
            return NO_EFFECTS
        effects: list[Effect] = self._pending
        self._pending = []
        self._leave(ticket, entry, replica, now)
        ticket.state = TicketState.FINISHED
        ticket.info.prefix = ()  # 6 kB for a long prompt, which the record of the decision would keep
        if outcome is Outcome.OK:
            if self._verdict.success(replica, ticket, entry, usage, now, effects):
                produced = self._lessons.answer(ticket, entry, replica, usage, now)
                entry.pool.signals.serve(produced, now)
                if judge is not None:
                    answered(judge, ticket, entry, produced, now)
            elif judge is not None:
                judge.unanswered(0.0, seen=False, faulty=True)
        else:
            if judge is not None:
                seen = ticket.first_byte_at > 0.0
                judge.unanswered(now - ticket.offered_at, seen, outcome not in CLIENT_SIDE)
            if outcome is Outcome.CLIENT_CLOSED and replica.abandons and entry.unary:
                abandon(replica, entry, ticket.routed_at, now)
                self._fleet.recount(replica, now)
            self._verdict.failure(replica, ticket, entry, outcome, status, None, now, effects)
        if replica.retired:
            self._fleet.bury(replica, now, effects)
        if self._waiting.queue:
            self._waiting.release(now, effects, self._send)
        return effects or NO_EFFECTS

    def _send(self, ticket: Ticket, entry: Entry, replica: Replica, now: float, why: str) -> None:
        """Book the request on `replica`, before it is sent."""
        if self._record_scores:
            roster = entry.pool.roster
            scores = snapshot(roster.ready) if roster.order is None else snapshot(roster.order.best(FEW))
        else:
            scores = []
        self._router.commit(replica, entry, ticket.info, now)
        book(replica, ticket, entry, now)
        entry.pool.signals.in_flight += 1
        if not why:
            why = "prefix" if entry.cached else ("session" if replica is entry.session else "least_work")
        ticket.state = TicketState.ROUTED
        ticket.replica = replica
        ticket.reason = why
        ticket.routed_at = ticket.progress_at = now
        ticket.first_byte_at = 0.0
        ticket.events = ticket.bytes_out = 0
        ticket.attempts += 1
        ticket.cached_tokens = entry.cached
        ticket.predicted_s = entry.predicted_s
        if replica.state is ReplicaState.TRIAL:
            replica.trial = ticket
            self._fleet.recount(replica, now)
        self._recent.add(Record(ticket.info, entry, now, "routed", replica.id, why, scores, self._router.weighing))

    def _leave(self, ticket: Ticket, entry: Entry, replica: Replica, now: float) -> None:
        release(replica, ticket, entry, now)
        entry.pool.signals.in_flight -= 1

    def _released(self, now: float, effects: list[Effect] | None = None) -> Effects:
        """`effects` after those that are pending, and what can leave the queue now."""
        if effects is None:
            effects = []
        if self._pending:
            effects[:0] = self._pending
            self._pending = []
        if self._waiting.queue:
            self._waiting.release(now, effects, self._send)
        return effects

    # ------------------------------------------------------------------ observations

    def observe_load(self, replica_id: str, load: RuntimeLoad, now: float) -> Effects:
        """One reading of a runtime's own load."""
        replica = self._fleet.replicas.get(replica_id)
        if replica is not None:
            self._watch.load(replica, load, now)
        return self._released(now)

    def observe_load_failed(self, replica_id: str, reason: str, now: float) -> Effects:
        """A reading that did not come; after some, the last one is no longer believed."""
        replica = self._fleet.replicas.get(replica_id)
        if replica is not None:
            self._watch.load_failed(replica, now)
        return self._released(now)

    def observe_probe(self, replica_id: str, probe: ProbeResult, now: float) -> Effects:
        """One health probe."""
        effects: list[Effect] = []
        replica = self._fleet.replicas.get(replica_id)
        if replica is not None:
            self._waiting.orphans(self._watch.probe(replica, probe, now, effects), now, effects)
        return self._released(now, effects)

    def observe_gpu(self, replica_id: str, reading: GpuReading | None, now: float) -> Effects:
        """What the GPUs under a replica say; None: nothing is known any more."""
        effects: list[Effect] = []
        replica = self._fleet.replicas.get(replica_id)
        if replica is not None:
            self._watch.gpu(replica, reading, now, effects)
        return self._released(now, effects)

    # ------------------------------------------------------------------ fleet

    def set_endpoints(self, endpoints: Iterable[Endpoint], now: float) -> Effects:
        """The whole wanted set. Those that vanish drain, new ones join."""
        effects: list[Effect] = []
        self._waiting.orphans(self._fleet.set_endpoints(endpoints, now, effects), now, effects)
        return self._released(now, effects)

    def drain(self, replica_id: str, now: float, deadline_s: float | None = None) -> Effects:
        """No new work for a replica. Requests that still run after `deadline_s` (None: the policy's) are aborted."""
        effects: list[Effect] = []
        replica = self._fleet.replicas.get(replica_id)
        if replica is not None:
            self._fleet.drain(replica, deadline_s, now, effects)
        return self._released(now, effects)

    def undrain(self, replica_id: str, now: float) -> Effects:
        """Take a drained replica back."""
        effects: list[Effect] = []
        replica = self._fleet.replicas.get(replica_id)
        if replica is not None and replica.state is ReplicaState.DRAINING:
            self._fleet.undrain(replica, "taken back by an operator", now, effects)
        return self._released(now, effects)

    def reconfigure(self, settings: LbSettings, now: float) -> Effects:
        """New settings. Tickets, health and all that was learned stay.

        Raises SettingsError, and changes nothing, for a weight that no scorer has.
        """
        self._router.configure(settings.routing)
        self.settings = settings
        self._waiting.reconfigure(settings)
        self._budget.reconfigure(settings.retries)
        self._watch.reconfigure(settings)
        self._verdict.reconfigure(settings)
        self._fleet.reconfigure(settings, now)
        self._record_scores = settings.routing.strategy == "tidegate"
        return self._released(now)

    def expect(self, objectives: Mapping[str, Objective], otherwise: Objective | None, now: float) -> None:
        """Count misses: what requests may expect, by model, and of models that are not named (None: no matter)."""
        self._fleet.pools.expect(objectives, otherwise, now)

    def shutdown(self, now: float) -> Effects:
        """Refuse new requests; those that wait or run go on."""
        self._closing = True
        return self._released(now)

    # ------------------------------------------------------------------ time

    def poll(self, now: float) -> Effects:
        """Let time pass."""
        effects: list[Effect] = []
        self._watch.tick(now, effects)
        self._waiting.expire(now, effects)
        return self._released(now, effects)

    def next_deadline(self) -> float | None:
        """When `poll` has something to do next; None: not before something else happens."""
        if self._pending:
            return -inf
        queue = self._waiting.queue.next_deadline()
        at = min(self._fleet.next_deadline(), inf if queue is None else queue)
        return at if at != inf else None

    # ------------------------------------------------------------------ views

    @property
    def replicas(self) -> Mapping[str, Replica]:
        """By id, as discovery lists them; to be read only."""
        return self._fleet.replicas

    def demand(self, now: float) -> DemandView:
        return demand_view(self._fleet, self._waiting.queue, now)

    def view(self, now: float) -> BalancerView:
        return balancer_view(
            self.settings, self._fleet, self._router, self._waiting.queue, self._budget, self._lessons,
            self._closing, now,
        )  # fmt: skip

    def explain(self, request_id: str) -> Explanation | None:
        """The last decision on a request, while it is among the recent ones."""
        return self._recent.find(request_id)
