"""APIs that read and generate nothing: embeddings, rerank, score, classify, tokenize. Their output limit is 0."""

from __future__ import annotations

from lb.request import RequestInfo
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import failures, replies
from lb.surfaces.fields import NOTHING, FieldReader, Fields, Raw, first_byte, items
from lb.surfaces.prompt import set_model, set_prompt, set_text


class _InputBody(Fields):
    model: str | None = None
    input: Raw = NOTHING
    messages: Raw = NOTHING
    prompt: Raw = NOTHING
    content: Raw = NOTHING


class _PairsBody(Fields):
    model: str | None = None
    query: Raw = NOTHING
    queries: Raw = NOTHING
    documents: Raw = NOTHING
    items: Raw = NOTHING
    text_1: Raw = NOTHING
    text_2: Raw = NOTHING
    data_1: Raw = NOTHING
    data_2: Raw = NOTHING


class _Unstreamed:
    """What all of them have in common: one JSON reply, errors as OpenAI's."""

    stream_format = StreamFormat.NONE
    read_usage = staticmethod(replies.openai_usage)
    error_body = staticmethod(failures.openai_body)

    def stream_end(self, tail: bytes) -> StreamEnd:
        return StreamEnd.UNKNOWN

    def error_event(self, reason: str, message: str) -> bytes:
        return b""


class Embeddings(_Unstreamed):
    """POST /v1/embeddings, /pooling, /classify, and llama.cpp's /embedding: `input` (text, texts, token ids)."""

    def __init__(self) -> None:
        self._reader = FieldReader(_InputBody)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        info.max_tokens = 0
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        for raw in (found.input, found.messages, found.prompt, found.content):
            if raw:
                set_prompt(info, raw)
                break
        info.choices = 1


class Pairs(_Unstreamed):
    """POST /v1/rerank (`query` against each of `documents`) and /v1/score (`text_1` against `text_2`).

    A cross-encoder reads the query once with each document.
    """

    def __init__(self) -> None:
        self._reader = FieldReader(_PairsBody)

    def read_request(self, body: bytes, info: RequestInfo) -> None:
        info.max_tokens = 0
        found = self._reader.read(body)
        if found is None:
            return
        set_model(info, found.model)
        left = found.query or found.queries or found.text_1 or found.data_1
        right = found.documents or found.items or found.text_2 or found.data_2
        set_text(info, left, right)
        times = len(items(right))
        if times > 1 and first_byte(left) == b'"':
            info.prompt_bytes += (times - 1) * len(left)
