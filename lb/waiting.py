"""The waiting room: who waits for room, who is let through, who is turned away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lb.admission.queue import WaitQueue
from lb.effects import Effect, Queued, Rejected, Routed, Ticket, TicketState
from lb.explain import Recent
from lb.fleet import Fleet
from lb.ledger import Entry
from lb.pools import Pool
from lb.refusal import Refusals
from lb.replica import Replica
from lb.routing.pipeline import Router
from lb.settings import LbSettings

Send = Callable[[Ticket, Entry, Replica, float, str], None]
"""Books a request on a replica: (ticket, entry, replica, now, main reason)."""


class WaitingRoom:
    """Late binding: a request is promised to a replica only when one has room for it."""

    __slots__ = ("_fleet", "_recent", "_router", "queue", "refusals")

    def __init__(self, settings: LbSettings, fleet: Fleet, router: Router, recent: Recent) -> None:
        self._fleet = fleet
        self._router = router
        self._recent = recent
        self.queue = WaitQueue(settings.admission)
        self.refusals = Refusals(settings, self.queue)

    def reconfigure(self, settings: LbSettings) -> None:
        self.queue.reconfigure(settings.admission)
        self.refusals.reconfigure(settings)

    def admit(self, ticket: Ticket, entry: Entry, now: float) -> Queued | Rejected:
        """Nobody has room for it now: let it wait, or turn it away, which ends the ticket."""
        info, pool = ticket.info, entry.pool
        rejected = self.refusals.before_waiting(pool, info, now)
        if rejected is None:
            until = self.refusals.patience_until(pool, info, now)
            if self.queue.push(ticket, pool.key, info.priority, until, info.body_bytes, now) is None:
                pool.signals.wait(entry.prompt, entry.output)
                self._recent.note(ticket, entry, now, "queued", self._router.weighing)
                return Queued(ticket)
            rejected = self.refusals.full(pool, now)
        ticket.state = TicketState.FINISHED
        pool.signals.rejected_total += 1
        self._recent.note(ticket, entry, now, rejected.reason, self._router.weighing)
        return rejected

    def leave(self, ticket: Ticket, entry: Entry) -> None:
        """Its client has left."""
        self.queue.remove(ticket)
        self._forget(entry)
        ticket.state = TicketState.FINISHED

    def release(self, now: float, effects: list[Effect], send: Send) -> None:
        """Send all that have room, the most urgent and then the oldest first."""
        has_room = self._fleet.pools.has_room
        while (ticket := self.queue.pop(now, has_room)) is not None:
            entry = self._forget(ticket.core)
            replica = self._router.choose(ticket, entry, now)
            if replica is None:
                # Only replicas that it was sent to before have room. They are in selection again, so they may be asked.
                replica = self._router.choose(ticket, entry, now, tried_too=True)
            assert replica is not None, f"the pool of {entry.pool.key!r} has room"
            send(ticket, entry, replica, now, "waited")
            effects.append(Routed(ticket))

    def expire(self, now: float, effects: list[Effect]) -> None:
        """Turn away those whose patience is at its end."""
        for ticket in self.queue.expired(now):
            entry = self._forget(ticket.core)
            self._reject(ticket, entry, self.refusals.waited_too_long(ticket, entry.pool, now), now, effects)

    def orphans(self, gone: list[Pool], now: float, effects: list[Effect]) -> None:
        """Turn away requests for models of which it has become known that nobody serves them."""
        for pool in gone:
            while (ticket := self.queue.pop_from(pool.key, now)) is not None:
                entry = self._forget(ticket.core)
                self._reject(ticket, entry, self.refusals.unknown_model(ticket.info), now, effects)

    def _forget(self, entry: object) -> Entry:
        """Take a ticket that has left the queue off the books of its pool."""
        assert isinstance(entry, Entry)
        pool = entry.pool
        pool.signals.leave_queue(entry.prompt, entry.output, self.queue.depth(pool.key))
        return entry

    def _reject(self, ticket: Ticket, entry: Entry, why: Rejected, now: float, effects: list[Effect]) -> None:
        ticket.state = TicketState.FINISHED
        entry.pool.signals.rejected_total += 1
        self._recent.note(ticket, entry, now, why.reason, self._router.weighing)
        effects.append(replace(why, ticket=ticket))
