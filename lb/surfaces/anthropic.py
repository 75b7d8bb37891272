"""Anthropic messages."""

from __future__ import annotations

from lb.request import RequestInfo, Usage
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw, positive
from lb.surfaces.prompt import set_model, set_session, set_text


class _Metadata(Fields):
    user_id: str | None = None


class _Body(Fields):
    model: str | None = None
    system: Raw = NOTHING
    messages: Raw = NOTHING
    tools: Raw = NOTHING
    metadata: Raw = NOTHING
    max_tokens: int | None = None
    stream: bool | None = None
    session_id: str | None = None


class Messages:
    """POST /v1/messages."""

    stream_format = StreamFormat.SSE
    error_body = staticmethod(failures.anthropic_body)
    error_event = staticmethod(failures.anthropic_event)

    def __init__(self) -> None:
        self._reader = FieldReader(_Body)
        self._metadata = FieldReader(_Metadata)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        info.max_tokens = positive(found.max_tokens)
        info.stream = found.stream is True
        metadata = self._metadata.read(found.metadata) if found.metadata else None
        set_session(info, found.session_id, metadata.user_id if metadata is not None else None)
        set_text(info, found.tools, found.system, found.messages)

    def read_usage(self, tail: bytes) -> Usage | None:
        """Input is counted in the first event, output in the last; cached and newly cached input are apart from it."""
        output = replies.last_number(tail, b'"output_tokens"')
        uncached = replies.last_number(tail, b'"input_tokens"')
        if output is None and uncached is None:
            return None
        cached = replies.last_number(tail, b'"cache_read_input_tokens"')
        created = replies.last_number(tail, b'"cache_creation_input_tokens"')
        prompt = None if uncached is None else uncached + (cached or 0) + (created or 0)
        return Usage(prompt_tokens=prompt, output_tokens=output, cached_tokens=cached)

    def stream_end(self, tail: bytes) -> StreamEnd:
        if b"event: error" in tail or b'"type":"error"' in tail:
            return StreamEnd.TRUNCATED
        return StreamEnd.COMPLETE if b"message_stop" in tail else StreamEnd.TRUNCATED
