"""Paths whose bodies are not read: documents, whatever the policy allows beyond the known APIs, WebSockets."""

from __future__ import annotations

from lb.request import RequestInfo, Usage
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures


class Opaque:
    """Nothing is read; the request costs the default."""

    stream_format = StreamFormat.NONE
    error_body = staticmethod(failures.openai_body)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        return

    def read_usage(self, tail: bytes) -> Usage | None:
        return None

    def stream_end(self, tail: bytes) -> StreamEnd:
        return StreamEnd.UNKNOWN

    def error_event(self, reason: str, message: str) -> bytes:
        return b""
