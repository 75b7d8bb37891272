"""What a replica's reply says of the replica. Statuses alone do not tell: runtimes differ in what they mean by them."""

from __future__ import annotations

from lb.effects import Outcome
from lb.errors import Reason
from lb.runtimes import RUNTIMES

HELD_BODY_BYTES = 65_536
"""Error bodies are read up to this size before it is decided whether to try elsewhere; real ones have a few hundred."""

_LOADING = (b"loading", b"starting", b"warming", b"not ready", b"initializing")
_TERMINATING = (b"after shutdown", b"shutting down", b"server is stopping")
_DYING = tuple(sign for spec in RUNTIMES.values() for sign in spec.dying)
_CLIENT_FAULTS = tuple(sign for spec in RUNTIMES.values() for sign in spec.client_faults)
"""Signs of all engines together: their words are their own, so it need not be known which one speaks."""

_FAILURES: dict[Outcome, tuple[Reason, int, str]] = {
    Outcome.CONNECT_FAILED: (Reason.UPSTREAM_CONNECT, 502, "the replica could not be reached"),
    Outcome.CONNECT_TIMEOUT: (Reason.UPSTREAM_CONNECT, 504, "the replica could not be reached in time"),
    Outcome.RESET: (Reason.UPSTREAM_RESET, 502, "the replica closed the connection before its answer was complete"),
    Outcome.FIRST_BYTE_TIMEOUT: (Reason.UPSTREAM_TIMEOUT, 504, "the replica did not begin to answer in time"),
    Outcome.IDLE_TIMEOUT: (Reason.UPSTREAM_TIMEOUT, 504, "the replica fell silent"),
    Outcome.INVALID: (Reason.UPSTREAM_INVALID, 502, "the replica's answer was not valid HTTP"),
    Outcome.TRUNCATED: (Reason.UPSTREAM_TRUNCATED, 502, "the replica ended the stream before the answer was complete"),
}
_ENDED = {
    Reason.DRAINING: "the proxy is shutting down",
    Reason.DRAIN_DEADLINE: "the replica is being taken out of service",
}


def failure_of(outcome: Outcome, why: Reason | None = None) -> tuple[Reason, int, str]:
    """What a client is told of a failed attempt, or of a request that was ended for a reason: reason, status, text."""
    if why is not None:
        return why, 503, _ENDED.get(why, "the request was ended; try again")
    return _FAILURES.get(outcome, (Reason.INTERNAL, 503, "the request could not be carried out; try again"))


def is_held(status: int) -> bool:
    """Whether a reply is held back until it is known if another replica should be tried."""
    return status >= 500 or status == 429


def judge(status: int, body: bytes) -> Outcome:
    """The outcome of a complete reply by its status and (for held replies) the beginning of its body."""
    if status < 400:
        return Outcome.OK
    if status in (429, 529):  # 529: Anthropic's "overloaded"
        return Outcome.OVERLOADED
    if status < 500:
        return Outcome.CLIENT_ERROR
    head = body[:4096]
    if any(sign.status == status and sign.contains in head for sign in _CLIENT_FAULTS):
        return Outcome.CLIENT_ERROR
    text = head.lower()
    if any(phrase in text for phrase in _TERMINATING) or any(
        sign.status == status and sign.contains in head for sign in _DYING
    ):
        return Outcome.TERMINATING
    if status == 503:
        return Outcome.LOADING if any(phrase in text for phrase in _LOADING) else Outcome.OVERLOADED
    return Outcome.SERVER_ERROR


def retry_after_s(value: bytes | None) -> float | None:
    """Seconds of a Retry-After header; None if absent or a date (which would need the replica's clock)."""
    if value is None or not value.strip().isdigit() or len(value) > 6:
        return None
    return float(value)
