"""Errors in each API's own words, so that its SDK raises what its users catch."""

from __future__ import annotations

from lb.surfaces.fields import encode

_OPENAI_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 413: "invalid_request_error", 422: "invalid_request_error", 429: "rate_limit_error",
}  # fmt: skip
_ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


def _openai(status: int, reason: str, message: str) -> dict[str, object]:
    kind = _OPENAI_TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "code": reason, "param": None}


def openai_body(status: int, reason: str, message: str) -> bytes:
    """`{"error": {"message", "type", "code", "param"}}`."""
    return encode({"error": _openai(status, reason, message)})


def openai_event(reason: str, message: str) -> bytes:
    """The OpenAI SDKs raise APIError on a chunk whose `error` is set."""
    return b"data: " + encode({"error": _openai(502, reason, message)}) + b"\n\n"


def responses_event(reason: str, message: str) -> bytes:
    """The `error` event of the Responses API, with the `error` member that makes the SDK raise."""
    event = {"type": "error", "code": reason, "message": message, "param": None, "error": _openai(502, reason, message)}
    return b"event: error\ndata: " + encode(event) + b"\n\n"


def anthropic_body(status: int, reason: str, message: str) -> bytes:
    """`{"type": "error", "error": {"type", "message"}}`; our own reason is beside it as `code`."""
    kind = _ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    return encode({"type": "error", "error": {"type": kind, "message": message, "code": reason}})


def anthropic_event(reason: str, message: str) -> bytes:
    return b"event: error\ndata: " + anthropic_body(500, reason, message) + b"\n\n"


def plain_body(status: int, reason: str, message: str) -> bytes:
    """`{"error": "..."}`, as Ollama and Triton say it."""
    return encode({"error": message, "code": reason})


def ndjson_event(reason: str, message: str) -> bytes:
    """A line `{"error": "..."}`: the Ollama clients raise on it."""
    return plain_body(502, reason, message) + b"\n"


def plain_event(reason: str, message: str) -> bytes:
    return b"data: " + plain_body(502, reason, message) + b"\n\n"


def tgi_body(status: int, reason: str, message: str) -> bytes:
    """`{"error": "...", "error_type": "..."}`; clients know `overloaded` and take the rest for a generation error."""
    return encode({"error": message, "error_type": "overloaded" if status in (429, 503) else reason})


def tgi_event(reason: str, message: str) -> bytes:
    return b"data:" + tgi_body(502, reason, message) + b"\n\n"


def llamacpp_body(status: int, reason: str, message: str) -> bytes:
    kind = (
        "unavailable_error" if status in (429, 503) else ("server_error" if status >= 500 else "invalid_request_error")
    )
    return encode({"error": {"code": status, "message": message, "type": kind, "reason": reason}})


def llamacpp_event(reason: str, message: str) -> bytes:
    return b"data: " + llamacpp_body(502, reason, message) + b"\n\n"
