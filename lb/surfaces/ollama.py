"""Ollama's native API: NDJSON, streamed unless the body says otherwise, counts in the last line."""

from __future__ import annotations

from lb.request import RequestInfo, Usage
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw, positive
from lb.surfaces.prompt import BLOB_TEXT_BYTES, set_model, set_prompt, set_session, set_text


class _Body(Fields):
    model: str | None = None
    system: Raw = NOTHING
    prompt: Raw = NOTHING
    suffix: Raw = NOTHING
    context: Raw = NOTHING
    images: list[Raw] = []  # noqa: RUF012 - msgspec copies an empty default
    messages: Raw = NOTHING
    tools: Raw = NOTHING
    input: Raw = NOTHING
    options: Raw = NOTHING
    stream: bool | None = None
    session_id: str | None = None


class _Options(Fields):
    num_predict: int | None = None


_BYTES_A_TOKEN = 4
"""Weight of a token of `context` (an earlier conversation as ids), in bytes of text."""


class _Lines:
    """What the generating surfaces share: reading a body's head, counting, judging the last line."""

    stream_format = StreamFormat.NDJSON
    error_body = staticmethod(failures.plain_body)

    def __init__(self) -> None:
        self._reader = FieldReader(_Body)
        self._options = FieldReader(_Options)

    def read_head(self, body: bytes, info: RequestInfo) -> _Body | None:
        info.stream = True
        found = self._reader.read(body)
        if found is None:
            return None
        set_model(info, found.model)
        info.stream = found.stream is not False
        options = self._options.read(found.options) if found.options else None
        info.max_tokens = positive(options.num_predict) if options is not None else None
        set_session(info, found.session_id)
        return found

    def error_event(self, reason: str, message: str) -> bytes:
        return failures.ndjson_event(reason, message)

    def read_usage(self, tail: bytes) -> Usage | None:
        """A prompt that was wholly cached has no `prompt_eval_count`."""
        prompt = replies.last_number(tail, b'"prompt_eval_count"')
        output = replies.last_number(tail, b'"eval_count"')
        return None if prompt is None and output is None else Usage(prompt_tokens=prompt, output_tokens=output)

    def stream_end(self, tail: bytes) -> StreamEnd:
        """The last line is `done`; its `context` can be long, so that only what follows it may be in reach."""
        line = tail[tail.rstrip().rfind(b"\n") + 1 :]
        if b'"done":true' in line or b'"total_duration":' in line or b'"eval_count":' in line:
            return StreamEnd.COMPLETE
        return StreamEnd.TRUNCATED


class OllamaGenerate(_Lines):
    """POST /api/generate."""

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self.read_head(body, info)
        if found is None:
            return
        set_prompt(info, found.prompt, found.system, found.suffix)
        info.prompt_bytes += len(found.images) * BLOB_TEXT_BYTES
        if len(found.context) > 2:
            info.prompt_bytes += (bytes(found.context).count(b",") + 1) * _BYTES_A_TOKEN


class OllamaChat(_Lines):
    """POST /api/chat."""

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self.read_head(body, info)
        if found is not None:
            set_text(info, found.tools, found.messages)


class OllamaEmbed(_Lines):
    """POST /api/embed (`input`) and /api/embeddings (`prompt`): never streamed, nothing generated."""

    stream_format = StreamFormat.NONE

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        found = self.read_head(body, info)
        info.stream = False
        info.max_tokens = 0
        if found is not None:
            set_prompt(info, found.input or found.prompt)
            info.choices = 1

    def error_event(self, reason: str, message: str) -> bytes:
        return b""

    def stream_end(self, tail: bytes) -> StreamEnd:
        return StreamEnd.UNKNOWN
