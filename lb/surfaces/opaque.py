"""Paths whose bodies are not read: documents, whatever the policy allows beyond the known APIs, WebSockets."""

from __future__ import annotations

from lb.request import RequestInfo, Usage
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures
from lb.surfaces.fields import FieldReader, Fields
from lb.surfaces.prompt import set_model


class _Named(Fields):
    model: str | None = None


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


class Question(Opaque):
    """Calls about a model that generate nothing and cost next to nothing (/tokenize, /api/show): only whom they ask."""

    def __init__(self) -> None:
        self._reader = FieldReader(_Named)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        info.max_tokens = 0
        found = self._reader.read(body)
        if found is not None:
            set_model(info, found.model)
