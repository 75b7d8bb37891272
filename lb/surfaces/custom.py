"""JSON APIs of an operator's own, read by the dotted paths that the policy gives."""

from __future__ import annotations

from lb.request import RequestInfo
from lb.settings import CustomSurface
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, MemberReader, Raw, first_byte, items, positive, scalar, text
from lb.surfaces.prompt import set_model, set_prompt


class _Path:
    """One dotted path: member names, or indices into arrays."""

    def __init__(self, dotted: str) -> None:
        self._steps = tuple((step, MemberReader(step)) for step in dotted.split("."))

    def find(self, body: bytes) -> Raw:
        """The value there, undecoded; NOTHING if there is none."""
        raw = Raw(body)
        for name, reader in self._steps:
            if name.isdigit() and first_byte(raw) == b"[":
                elements = items(raw)
                raw = elements[int(name)] if int(name) < len(elements) else NOTHING
            else:
                raw = reader.read(raw)
            if not raw:
                return NOTHING
        return raw


class Custom:
    """One custom path of the policy. Replies are read as OpenAI's where they look like it; else nothing is known."""

    stream_format = StreamFormat.SSE
    read_usage = staticmethod(replies.openai_usage)
    error_body = staticmethod(failures.openai_body)
    error_event = staticmethod(failures.openai_event)

    def __init__(self, settings: CustomSurface) -> None:
        self._prompt = _Path(settings.prompt)
        self._max_tokens = _Path(settings.max_tokens)
        self._model = _Path(settings.model)
        self._stream = _Path(settings.stream)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        set_model(info, text(self._model.find(body)))
        limit = scalar(self._max_tokens.find(body))
        info.max_tokens = positive(int(limit)) if limit is not None else None
        info.stream = bool(scalar(self._stream.find(body)))
        prompt = self._prompt.find(body)
        if prompt:
            set_prompt(info, prompt)

    def stream_end(self, tail: bytes) -> StreamEnd:
        return StreamEnd.UNKNOWN
