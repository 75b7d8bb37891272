"""Finding numbers and ends in the last bytes of a reply, which may begin in the middle of anything.

Generated text cannot fake a key: inside a JSON string the quotes around it would be escaped.
"""

from __future__ import annotations

import re
from typing import Final

from lb.request import Usage
from lb.surface import StreamEnd
from lb.surfaces.fields import token_counts

USAGE_WINDOW = 4096
"""Usage stands at the very end of a reply; a longer search would cost each stream without usage some microseconds."""
_INT = re.compile(rb"\s*:\s*(\d{1,12})\b")
_STRING = re.compile(rb'\s*:\s*"([^"\\]{0,64})"')
_USUAL = re.compile(
    rb'"usage"\s*:\s*\{\s*"prompt_tokens"\s*:\s*(\d{1,12})\s*,\s*(?:"total_tokens"\s*:\s*\d+\s*,\s*)?'
    rb'"completion_tokens"\s*:\s*(\d{1,12})\b(?:[^{}]*\{[^{}]*"cached_tokens"\s*:\s*(\d{1,12})\b)?'
)
"""The order in which vLLM, SGLang, llama.cpp and OpenAI write it: one match instead of one for each number."""
_MOST: Final = 1_000_000_000_000
"""No count has more digits."""
_OBJECT = re.compile(rb"\s*:\s*\{")
_TYPE = re.compile(rb'\s*:\s*\{\s*"type"\s*:\s*"([^"\\]{0,64})"')
_ABORTED = frozenset({b"abort", b"error", b"aborted", b"cancelled"})
"""Finish reasons of an answer that the runtime gave up (vLLM and SGLang say `abort` when they are told to stop)."""


def number(tail: bytes, key: bytes, start: int = 0) -> int | None:
    """The integer after the first `key` (with its quotes) from `start` on."""
    at = tail.find(key, start)
    if at < 0:
        return None
    match = _INT.match(tail, at + len(key))
    return int(match[1]) if match is not None else None


def last_number(tail: bytes, key: bytes) -> int | None:
    """The integer after the last `key` in `tail`."""
    at = tail.rfind(key)
    match = _INT.match(tail, at + len(key)) if at >= 0 else None
    return int(match[1]) if match is not None else None


def openai_usage(tail: bytes) -> Usage | None:
    """`usage` of the chat, completions, embeddings, rerank and responses APIs: the last that is an object."""
    low = max(0, len(tail) - USAGE_WINDOW)
    at = len(tail)
    while (at := tail.rfind(b'"usage"', low, at)) >= 0:
        end = tail.find(b"}", at) + 1
        if tail[at + 7 : at + 9] == b":{" and end > 0 and tail.find(b"{", at + 9, end) < 0:
            counted, given, held = token_counts(tail[at + 8 : end])
            if counted is not None and given is not None and 0 <= counted < _MOST and 0 <= given < _MOST:
                return Usage(counted, given, held if held is not None and 0 <= held < _MOST else None)
        usual = _USUAL.match(tail, at)
        if usual is not None:
            prompt, output, cached = usual.groups()
            return Usage(int(prompt), int(output), int(cached) if cached is not None else None)
        if _OBJECT.match(tail, at + 7) is not None:
            break
    else:
        return None
    prompt_tokens = number(tail, b'"prompt_tokens"', at)
    if prompt_tokens is None:
        prompt_tokens = number(tail, b'"input_tokens"', at)
    output_tokens = number(tail, b'"completion_tokens"', at)
    if output_tokens is None:
        output_tokens = number(tail, b'"output_tokens"', at)
    if prompt_tokens is None and output_tokens is None:
        prompt_tokens = number(tail, b'"total_tokens"', at)
        if prompt_tokens is None:
            return None
    return Usage(prompt_tokens, output_tokens, number(tail, b'"cached_tokens"', at))


def finish_end(tail: bytes) -> StreamEnd:
    """Judge a stream whose last chunk names a finish reason (a string, or an object with a type).

    `[DONE]` alone proves nothing: servers that are told to stop have sent it without a last chunk. A last chunk without
    `[DONE]` is a complete answer.
    """
    at = len(tail)
    while (at := tail.rfind(b'"finish_reason"', 0, at)) >= 0:
        match = _STRING.match(tail, at + 15) or _TYPE.match(tail, at + 15)
        if match is not None and match[1]:
            return StreamEnd.TRUNCATED if match[1] in _ABORTED else StreamEnd.COMPLETE
    return StreamEnd.TRUNCATED
