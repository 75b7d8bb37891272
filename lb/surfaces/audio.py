"""Audio: transcriptions and translations (multipart uploads, passed on unread but for their form fields) and speech."""

from __future__ import annotations

import re

from lb.request import RequestInfo
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw
from lb.surfaces.prompt import set_model, set_text

_FORM_BYTES = 8192
"""Form fields are looked for this near to either end of an upload; what lies between is sound."""
_FIELD = re.compile(rb'name="(model|stream)"(?:\r\n[^\r\n]{1,200}){0,4}\r\n\r\n([^\r\n]{1,512})\r\n')


class _SpeechBody(Fields):
    model: str | None = None
    input: Raw = NOTHING
    stream: bool | None = None


class Audio:
    """POST /v1/audio/transcriptions, /translations, /speech."""

    stream_format = StreamFormat.SSE
    read_usage = staticmethod(replies.openai_usage)
    error_body = staticmethod(failures.openai_body)
    error_event = staticmethod(failures.openai_event)

    def __init__(self) -> None:
        self._reader = FieldReader(_SpeechBody)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        if body[:2] == b"--":
            _read_form(body, info)
            return
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        info.stream = found.stream is True
        set_text(info, found.input)

    def stream_end(self, tail: bytes) -> StreamEnd:
        """Transcripts end with `transcript.text.done` or a finish reason; a stream of sound has no end of its own."""
        if b'"transcript.text.done"' in tail:
            return StreamEnd.COMPLETE
        if b"data:" not in tail:
            return StreamEnd.UNKNOWN
        return replies.finish_end(tail)


def _read_form(body: bytes, info: RequestInfo) -> None:
    ends = (body,) if len(body) <= 2 * _FORM_BYTES else (body[:_FORM_BYTES], body[-_FORM_BYTES:])
    for part in ends:
        for match in _FIELD.finditer(part):
            value = match[2].decode("utf-8", "replace").strip()
            if match[1] == b"model":
                set_model(info, value)
            else:
                info.stream = value.lower() in ("true", "1")
