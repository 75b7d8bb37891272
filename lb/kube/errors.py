"""What the API server refuses, by what a caller can do about it. Pure.

Status codes and the `Status` object: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

LONGEST_RETRY_AFTER_S = 300.0
"""A server that says more is not believed: it may be back long before."""
_LONGEST_MESSAGE = 500


class KubeError(Exception):
    """A call that did not do what it was made for."""

    lasting: ClassVar[bool] = False
    """Whether the server or our access to it is in trouble, so that the next call is likely to fail, too."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after_s: float | None = None,
        causes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        """HTTP status; 0: there was no answer."""
        self.reason = reason
        """The API's own word: AlreadyExists, Expired, TooManyRequests, ..."""
        self.retry_after_s = retry_after_s
        """Seconds that the server asks us to wait; None: it does not say."""
        self.causes = causes
        """Reasons of the details: `DisruptionBudget` where an eviction would break one."""


class UnreachableError(KubeError):
    """No answer: no connection, no valid certificate, cut off, or not within the deadline. It may have been done."""

    lasting = True


class NotYetError(KubeError):
    """Not even asked: after errors the next call has to wait longer than this one's deadline."""


class UnauthorizedError(KubeError):
    """401: the token is not valid (any more). Token files are read again at each call."""

    lasting = True


class ForbiddenError(KubeError):
    """403: the role lacks the verb. Asking again does not help."""

    lasting = True


class NotFoundError(KubeError):
    """404: no such object, or no such kind."""


class ConflictError(KubeError):
    """409: it changed since it was read, exists already, or somebody else owns the field."""


class GoneError(KubeError):
    """410: that resourceVersion is too old: list again."""


class InvalidError(KubeError):
    """400, 405, 413, 415 or 422: what was sent is wrong."""


class ThrottledError(KubeError):
    """429: later. Also an eviction that a disruption budget does not allow now (`causes`)."""

    lasting = True


class UnavailableError(KubeError):
    """5xx: the server has a problem."""

    lasting = True


_BY_STATUS: dict[int, type[KubeError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    429: ThrottledError,
}


def error_from(status: int, body: bytes | str | Mapping[str, Any], retry_after: str | None, what: str) -> KubeError:
    """The error of an answer. `body`: a Status object, or whatever a proxy wrote; `what`: the call, for the message."""
    answer = body if isinstance(body, Mapping) else _status_object(body)
    details = answer.get("details")
    details = details if isinstance(details, Mapping) else {}
    causes = details.get("causes")
    text = str(answer.get("message") or answer.get("reason") or "no explanation")[:_LONGEST_MESSAGE]
    reason = str(answer.get("reason") or "")[:_LONGEST_MESSAGE]
    kind = _BY_STATUS.get(status) or (UnavailableError if status >= 500 else InvalidError)
    return kind(
        f"{what}: {status} {reason}: {text}",
        status=status,
        reason=reason,
        retry_after_s=_seconds(retry_after if retry_after is not None else details.get("retryAfterSeconds")),
        causes=tuple(str(cause.get("reason")) for cause in causes if isinstance(cause, Mapping))
        if isinstance(causes, list)
        else (),
    )


def _status_object(body: bytes | str) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if isinstance(found, Mapping):
        return found
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    return {"message": " ".join(text.split())}


def _seconds(value: object) -> float | None:
    """Retry-After in whole seconds; the API server sends no dates."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        return None
    return min(float(text), LONGEST_RETRY_AFTER_S) or None
