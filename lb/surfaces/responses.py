"""OpenAI Responses: `input` and `instructions` in, typed SSE events out."""

from __future__ import annotations

from lb.request import RequestInfo
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw, positive
from lb.surfaces.prompt import set_model, set_session, set_text


class _Body(Fields):
    model: str | None = None
    input: Raw = NOTHING
    instructions: Raw = NOTHING
    tools: Raw = NOTHING
    max_output_tokens: int | None = None
    stream: bool | None = None
    prompt_cache_key: str | None = None
    session_id: str | None = None
    user: str | None = None


class Responses:
    """POST /v1/responses."""

    stream_format = StreamFormat.SSE
    read_usage = staticmethod(replies.openai_usage)
    error_body = staticmethod(failures.openai_body)
    error_event = staticmethod(failures.responses_event)

    def __init__(self) -> None:
        self._reader = FieldReader(_Body, texts=True)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        info.max_tokens = positive(found.max_output_tokens)
        info.stream = found.stream is True
        set_session(info, found.prompt_cache_key, found.session_id, found.user)
        set_text(info, found.tools, found.instructions, found.input)

    def stream_end(self, tail: bytes) -> StreamEnd:
        """`response.incomplete` is an answer at its limit; the last event repeats the whole answer, so its beginning
        may be out of reach and its `usage` must do."""
        if b"response.failed" in tail or b"event: error" in tail:
            return StreamEnd.TRUNCATED
        if b"response.completed" in tail or b"response.incomplete" in tail:
            return StreamEnd.COMPLETE
        usage = replies.openai_usage(tail)
        return StreamEnd.COMPLETE if usage is not None and usage.output_tokens is not None else StreamEnd.TRUNCATED
