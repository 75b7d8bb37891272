"""Answers for requests that cannot be served, with the truth about when to come again."""

from __future__ import annotations

from math import ceil, inf

from lb.admission.queue import WaitQueue
from lb.effects import Rejected, Ticket
from lb.errors import Reason
from lb.ledger import Entry
from lb.pools import Pool
from lb.replica import Replica, ReplicaState
from lb.request import RequestInfo
from lb.routing.pipeline import Router
from lb.settings import LbSettings

_LEARNED = 8
"""Observations behind a replica's speed model from which its predictions may refuse a request."""
_CLOSING_S = 1.0
"""After a restart another instance, or the next one, answers at once."""


class Refusals:
    """Makes the refusals, and decides on those that depend on time alone."""

    __slots__ = ("_queue", "_settings")

    def __init__(self, settings: LbSettings, queue: WaitQueue) -> None:
        self._settings = settings
        self._queue = queue

    def reconfigure(self, settings: LbSettings) -> None:
        self._settings = settings

    def unknown_model(self, info: RequestInfo) -> Rejected:
        return Rejected(Reason.MODEL_NOT_FOUND, 404, f"the model {info.model!r} does not exist here")

    def closing(self) -> Rejected:
        return Rejected(Reason.DRAINING, 503, "this instance is shutting down", _CLOSING_S)

    def late(self, replica: Replica, router: Router, entry: Entry, info: RequestInfo, now: float) -> bool:
        """Whether the request cannot be answered before its deadline by the best replica there is."""
        deadline = info.deadline_at
        if deadline is None:
            return False
        if deadline <= now:
            return True
        known = replica.speed.coefficients
        if known.first_tokens + known.steps < _LEARNED:
            return False
        return now + router.predict_s(replica, entry, now) > deadline

    def too_late(self, pool: Pool, now: float) -> Rejected:
        return Rejected(
            Reason.DEADLINE, 503, "the answer cannot be ready before the request's deadline", self._wait_s(pool, now)
        )

    def before_waiting(self, pool: Pool, info: RequestInfo, now: float) -> Rejected | None:
        """Why the request should not even wait, or None."""
        if not pool.roster.ready:
            if not pool.roster.cold:
                return Rejected(
                    Reason.ALL_UNHEALTHY,
                    503,
                    "all replicas of the model are unhealthy",
                    self._recovery_s(pool, now),
                )
            if not self._settings.admission.queue:
                return Rejected(
                    Reason.NO_REPLICA, 503, "no replica serves the model now", self._settings.admission.queue_wait_s
                )
        deadline = info.deadline_at
        if deadline is not None and (
            deadline <= now or (pool.roster.ready and now + self._eta_s(pool, now) > deadline)
        ):
            return self.too_late(pool, now)
        return None

    def patience_until(self, pool: Pool, info: RequestInfo, now: float) -> float:
        """How long the request may wait."""
        admission = self._settings.admission
        until = now + (admission.queue_wait_s if pool.roster.ready else admission.cold_wait_s)
        return until if info.deadline_at is None else min(until, info.deadline_at)

    def full(self, pool: Pool, now: float) -> Rejected:
        return Rejected(Reason.QUEUE_FULL, 429, "all replicas are busy and the queue is full", self._wait_s(pool, now))

    def waited_too_long(self, ticket: Ticket, pool: Pool, now: float) -> Rejected:
        deadline = ticket.info.deadline_at
        waited = f"after {now - ticket.offered_at:.0f} s"
        if deadline is not None and deadline <= now:
            return Rejected(Reason.DEADLINE, 504, f"the request's deadline passed while it waited, {waited}")
        retry_after_s = self._wait_s(pool, now)
        if not pool.roster.ready:
            return Rejected(Reason.NO_REPLICA, 503, f"no replica came up for the model, {waited}", retry_after_s)
        return Rejected(Reason.QUEUE_TIMEOUT, 503, f"no replica had room, {waited}", retry_after_s)

    def _wait_s(self, pool: Pool, now: float) -> float:
        return self._queue.retry_after_s(pool.key, now)

    def _eta_s(self, pool: Pool, now: float) -> float:
        """When a request that starts to wait now is expected to be sent; 0 while nothing is known."""
        rate = self._queue.releases_per_s(pool.key, now)
        return self._queue.depth(pool.key) / rate if rate > 0.0 else 0.0

    def _recovery_s(self, pool: Pool, now: float) -> float:
        """The earliest that a replica of the pool can be back: an ejection's end, or enough good probes."""
        health = self._settings.health
        soonest = inf
        for replica in pool.roster.members:
            if replica.state is ReplicaState.EJECTED:
                soonest = min(soonest, replica.outlier.ejected_until - now)
            elif replica.state is ReplicaState.FAILED:
                soonest = min(soonest, health.rise * health.interval_s)
        return float(max(1, ceil(soonest))) if soonest != inf else 1.0
