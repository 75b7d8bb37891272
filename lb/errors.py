"""Why a request was not served, or a change not accepted.

`Reason` is one vocabulary for three readers: the JSON code a client gets, the metric label, and the log.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why Tidegate itself answered a request instead of a replica."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MODEL_NOT_FOUND = "model_not_found"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    URI_TOO_LONG = "uri_too_long"
    HEADERS_TOO_LARGE = "headers_too_large"
    EXPECTATION_FAILED = "expectation_failed"
    NOT_IMPLEMENTED = "not_implemented"
    VERSION_NOT_SUPPORTED = "version_not_supported"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    DEADLINE = "deadline"
    NO_REPLICA = "no_replica"
    ALL_UNHEALTHY = "all_unhealthy"
    DRAINING = "draining"
    UPSTREAM_CONNECT = "upstream_connect"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_INVALID = "upstream_invalid"
    UPSTREAM_TRUNCATED = "upstream_truncated"
    DRAIN_DEADLINE = "drain_deadline"
    INTERNAL = "internal"


class ProxyError(Exception):
    """A request that Tidegate answers itself with an error.

    `status` is the HTTP status; `retry_after_s` is sent as `Retry-After` (whole seconds, rounded up) when not None.
    """

    def __init__(
        self, reason: Reason, status: int, message: str, *, retry_after_s: float | None = None, close: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s
        self.close = close
        self.surface: str | None = None
        """The surface in whose shape the error is told, once it is known."""


class SettingsError(Exception):
    """A setting that cannot be used; the message names the field, the value and what would be right."""
