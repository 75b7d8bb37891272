"""How an API's bodies are read: the contract that each file of `lb.surfaces` fulfils.

A surface never changes a byte of what passes; it only reads. Nothing here raises on a body that it cannot read: the
runtime is the judge of its own API, and an unreadable body is proxied with default estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from lb.request import RequestInfo, SurfaceName, Usage


class StreamFormat(StrEnum):
    """How a streamed reply is framed; decides what an error looks like in the middle of it."""

    SSE = "sse"
    NDJSON = "ndjson"
    NONE = "none"


class StreamEnd(StrEnum):
    """What the tail of a stream says of how it ended."""

    COMPLETE = "complete"
    """The API's own end was seen (last chunk with a finish reason, `done: true`, `message_stop`)."""
    TRUNCATED = "truncated"
    """The stream's framing ended, but the API's own end is missing or says that the runtime aborted."""
    UNKNOWN = "unknown"
    """This API has no end of its own."""


@dataclass(frozen=True, slots=True)
class Route:
    """An allowed upstream path and the surface it speaks."""

    surface: SurfaceName
    methods: frozenset[str]
    generates: bool
    """True where a request costs GPU time; False for lists and documents, which are routed at no cost."""
    streams_by_path: bool = False
    """The path alone says that the reply is streamed (`/generate_stream`)."""
    model_in_path: str | None = None


class Surface(Protocol):
    """One API."""

    stream_format: StreamFormat

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        """Fill model, prompt size, prefix, limit, choices, stream and session of `info` from a whole body.

        Fields that the body does not give keep their values. Never raises.
        """

    def read_usage(self, tail: bytes) -> Usage | None:
        """Token counts from the last bytes (at most 16 KiB) of a reply, streamed or not; None if it says none."""

    def stream_end(self, tail: bytes) -> StreamEnd:
        """Judge the end of a streamed reply from its last bytes (at most 16 KiB)."""

    def error_body(self, status: int, reason: str, message: str) -> bytes:
        """An error in the API's own shape, as its SDK expects it (JSON)."""

    def error_event(self, reason: str, message: str) -> bytes:
        """An error for the middle of a stream, framed for it (SSE event, NDJSON line), that makes the SDK raise."""
