"""What the data plane tells of each finished request, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lb.effects import Outcome
from lb.errors import Reason
from lb.request import SurfaceName


@dataclass(slots=True)
class RequestRecord:
    """One finished request. Carries no header value, no key and no body."""

    request_id: str
    method: str
    path: str
    client: str
    surface: SurfaceName
    model: str | None
    tenant: str
    status: int
    """Status the client got; 499 when it had left before there was one."""
    outcome: Outcome | None
    """How the attempt at the replica ended; None when Tidegate answered itself."""
    reason: Reason | None
    """Why Tidegate answered itself, or cut the stream."""
    replica_id: str | None
    decision_reason: str
    attempts: int
    queue_s: float
    ttft_s: float | None
    """From the end of the request to the reply's first byte; None if there was none."""
    duration_s: float
    bytes_in: int
    bytes_out: int
    events: int
    est_prompt_tokens: float
    est_output_tokens: float
    prompt_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    predicted_s: float


class Observer(Protocol):
    """Counts and logs; must not block and must not raise."""

    def finished(self, record: RequestRecord) -> None:
        """A request ended; called once for each, on the event loop."""

    def refused(self, reason: Reason) -> None:
        """Bytes that never became a request were answered with an error, or a connection was cut for `reason`."""

    def connections(self, delta: int) -> None:
        """A client connection was opened (+1) or closed (-1)."""


class SilentObserver:
    """Counts nothing; for tools and tests that watch from outside."""

    def finished(self, record: RequestRecord) -> None:
        """Drop it."""

    def refused(self, reason: Reason) -> None:
        """Drop it."""

    def connections(self, delta: int) -> None:
        """Drop it."""
