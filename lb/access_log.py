"""One line per request: what was asked, which replica answered and why that one, how long it took.

Never a body, a header, a query or a key: of a caller's identity only the name of his key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from lb.effects import Outcome
from lb.log import Fields, timestamp

if TYPE_CHECKING:
    from lb.errors import Reason
    from lb.proxy.observer import Observer, RequestRecord

WAITED_S = 0.1
"""A wait in the queue of this length makes a request worth a line under `errors`; below it is the scheduler's noise."""

_UNREMARKABLE = (Outcome.OK, None)

AccessMode = Literal["off", "errors", "all"]


class AccessLog:
    """Observer of finished requests. `write` takes the fields of a line, `wall` gives epoch seconds."""

    def __init__(self, mode: AccessMode, write: Callable[[Fields], None], wall: Callable[[], float]) -> None:
        self._mode = mode
        self._write = write
        self._wall = wall

    def finished(self, record: RequestRecord) -> None:
        if self._mode == "all" or (self._mode == "errors" and is_notable(record)):
            self._write(access_fields(record, self._wall()))

    def refused(self, reason: Reason) -> None:
        """Bytes that were no request have no line of their own, or anyone could fill the disk; they are counted."""

    def connections(self, delta: int) -> None:
        """Connections have no line."""


class Observers:
    """Tells several observers of the data plane, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def finished(self, record: RequestRecord) -> None:
        for observer in self._observers:
            observer.finished(record)

    def refused(self, reason: Reason) -> None:
        for observer in self._observers:
            observer.refused(reason)

    def connections(self, delta: int) -> None:
        for observer in self._observers:
            observer.connections(delta)


def is_notable(record: RequestRecord) -> bool:
    """Failed, retried or waited. A request that the client ended is no failure of ours, but worth knowing of."""
    return (
        record.status >= 400
        or record.reason is not None
        or record.outcome not in _UNREMARKABLE
        or record.attempts > 1
        or record.queue_s > WAITED_S
    )


def access_fields(record: RequestRecord, wall_s: float) -> dict[str, object]:
    """The fields of a request's line, in the order that people read: what, how it ended, where and why, how long."""
    outcome = record.outcome
    return {
        "ts": timestamp(wall_s),
        "level": "info",
        "logger": "lb.access",
        "msg": "request",
        "id": record.request_id,
        "client": record.client,
        "tenant": record.tenant,
        "method": record.method,
        "path": record.path.partition("?")[0],
        "surface": str(record.surface),
        "model": record.model,
        "status": record.status,
        "outcome": str(outcome) if outcome is not None else "answered_here",
        "reason": str(record.reason) if record.reason is not None else None,
        "replica": record.replica_id,
        "why": record.decision_reason or None,
        "attempts": record.attempts,
        "queue_s": record.queue_s,
        "ttft_s": record.ttft_s,
        "duration_s": record.duration_s,
        "predicted_s": record.predicted_s or None,
        "events": record.events or None,
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
    }
