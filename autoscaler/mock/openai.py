"""OpenAI's request and reply bodies as vLLM reads and writes them."""

from __future__ import annotations

import base64
import json
import re
import struct
import time
from typing import Any

import msgspec

from autoscaler.mock.errors import RequestError

_OUTPUT_MARK = re.compile(r"\[mock_output_tokens=(\d+)\]")
_MARK_TAIL = 64
"""The mark is looked for in so many last characters of a prompt."""
_BYTES_PER_TOKEN = 4


class Body(msgspec.Struct):
    """The fields of a body that matter here, for all three surfaces."""

    model: str | None = None
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[Any] | None = None
    input: str | list[Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    n: int | None = 1
    ignore_eos: bool = False
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    encoding_format: str | None = None
    mock_output_tokens: int | None = None
    mock_prompt_tokens: int | None = None


_DECODER = msgspec.json.Decoder(Body, strict=True)


def read_body(raw: bytes) -> Body:
    """Raises RequestError (400) in vLLM's words."""
    try:
        return _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        raise RequestError(400, "Bad Request", f"1 validation error: {error}", "body") from None
    except msgspec.DecodeError as error:
        raise RequestError(400, "Bad Request", f"JSON decode error: {error}", "body") from None


def chat_text(body: Body) -> str:
    """What a chat template would make of the messages, near enough: their texts, in order."""
    if not body.messages:
        raise RequestError(400, "BadRequestError", "messages must not be empty", "messages")
    parts: list[str] = []
    for message in body.messages:
        content = message.get("content")
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, list):
            parts.extend(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if body.tools:
        parts.insert(0, json.dumps(body.tools))
    return "\n".join(parts)


def flat_text(value: str | list[Any] | None, name: str) -> tuple[str, int]:
    """(text, tokens given as ids) of a `prompt` or `input`."""
    if value is None:
        raise RequestError(400, "BadRequestError", f"{name} is missing", name)
    if isinstance(value, str):
        return value, 0
    texts = [item for item in value if isinstance(item, str)]
    ids = sum(len(item) if isinstance(item, list) else 1 for item in value if isinstance(item, int | list))
    return "\n".join(texts), ids


def text_tokens(text: str) -> int:
    """4 bytes a token, at least one."""
    return max(1, len(text.encode()) // _BYTES_PER_TOKEN)


def prefix_blocks(text: str, block_tokens: int) -> tuple[int, ...]:
    """Ids of the full blocks; each stands for everything up to its end."""
    raw = text.encode()
    size = block_tokens * _BYTES_PER_TOKEN
    ids: list[int] = []
    chain = 0
    for start in range(0, len(raw) - size + 1, size):
        chain = hash((chain, raw[start : start + size]))
        ids.append(chain)
    return tuple(ids)


def output_tokens(body: Body, header: bytes | None, text: str, default: int) -> tuple[int, bool]:
    """(tokens that will be generated, whether the limit ended them).

    The true length comes from the header `x-mock-output-tokens`, the field `mock_output_tokens` or a mark
    `[mock_output_tokens=N]` at the end of the prompt (routers that write bodies anew drop unknown fields); else it is
    the limit under `ignore_eos`, else `default`.
    """
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if limit is not None and limit < 1:
        raise RequestError(400, "BadRequestError", f"max_tokens must be at least 1, got {limit}.", "max_tokens")
    wanted: int | None = None
    if header is not None and header.isdigit():
        wanted = int(header)
    elif body.mock_output_tokens is not None:
        wanted = body.mock_output_tokens
    elif (mark := _OUTPUT_MARK.search(text, max(0, len(text) - _MARK_TAIL))) is not None:
        wanted = int(mark[1])
    elif body.ignore_eos and limit is not None:
        wanted = limit
    length = max(1, default if wanted is None else wanted)
    return (limit, True) if limit is not None and length >= limit else (length, False)


def tool_call(body: Body) -> dict[str, Any] | None:
    """The call with which the mock answers a request that brings tools: the tool that is named, or the first."""
    if not body.tools or body.tool_choice == "none":
        return None
    name = str(body.tools[0].get("function", {}).get("name", "tool"))
    if isinstance(body.tool_choice, dict):
        name = str(body.tool_choice.get("function", {}).get("name", name))
    last = (body.messages or [{}])[-1].get("content")
    arguments = json.dumps({"echo": last if isinstance(last, str) else ""})
    return {"id": "call_mock0", "type": "function", "function": {"name": name, "arguments": arguments}}


def words(tokens: int) -> str:
    """Text of so many tokens."""
    return "tok " * tokens


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def error_body(status: int, kind: str, message: str, param: str | None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": status}})


def models_body(name: str, max_tokens: int, created: int) -> bytes:
    card = {"id": name, "object": "model", "created": created, "owned_by": "tidegate-mock", "max_model_len": max_tokens}
    return msgspec.json.encode({"object": "list", "data": [card]})


def embeddings_body(body: Body, name: str, tokens: int) -> bytes:
    """Eight numbers for each input, the same for the same text."""
    inputs = body.input if isinstance(body.input, list) and body.input and not isinstance(body.input[0], int) else [0]
    data: list[dict[str, Any]] = []
    for index, item in enumerate(inputs):
        seed = len(item) if isinstance(item, str | list) else len(str(body.input))
        vector = [((seed * 31 + place * 17) % 101 - 50) / 50 for place in range(8)]
        packed = base64.b64encode(struct.pack("<8f", *vector)).decode()
        data.append(
            {"object": "embedding", "index": index, "embedding": packed if body.encoding_format == "base64" else vector}
        )
    return msgspec.json.encode(
        {"object": "list", "model": name, "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    )


class ReplyWriter:
    """Bodies of one generation, chat or completion, unary or streamed."""

    def __init__(self, body: Body, chat: bool, reply_id: str, model: str) -> None:
        self._chat = chat
        self._choices = max(1, body.n or 1)
        self._call = tool_call(body) if chat else None
        self._id = ("chatcmpl-" if chat else "cmpl-") + reply_id
        self._created = int(time.time())
        self._model = model
        kind = "chat.completion.chunk" if chat else "text_completion"
        common = f'"id":"{self._id}","object":"{kind}","created":{self._created},"model":{json.dumps(model)}'
        self._chunk_head = f'data: {{{common},"choices":['.encode()

    def unary(self, tokens: int, by_limit: bool, used: dict[str, Any]) -> bytes:
        finish = "tool_calls" if self._call else "length" if by_limit else "stop"
        choices: list[dict[str, Any]] = []
        for index in range(self._choices):
            choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": finish}
            if not self._chat:
                choice["text"] = words(tokens)
            elif self._call:
                choice["message"] = {"role": "assistant", "content": None, "tool_calls": [self._call]}
            else:
                choice["message"] = {"role": "assistant", "content": words(tokens)}
            choices.append(choice)
        kind = "chat.completion" if self._chat else "text_completion"
        return msgspec.json.encode(
            {
                "id": self._id, "object": kind, "created": self._created, "model": self._model,
                "choices": choices, "usage": used,
            }
        )  # fmt: skip

    def stream_head(self) -> bytes:
        """The event that opens a chat stream, empty for completions."""
        return self._event('"delta":{"role":"assistant","content":""}', "null") if self._chat else b""

    def stream_tokens(self, tokens: int, finish: bool, by_limit: bool) -> bytes:
        """`tokens` further tokens in one event, with the finish reason if these are the last."""
        reason = "null"
        if finish:
            reason = '"tool_calls"' if self._call else '"length"' if by_limit else '"stop"'
        if not self._chat:
            return self._event(f'"text":"{words(tokens)}"', reason)
        if self._call is None:
            return self._event(f'"delta":{{"content":"{words(tokens)}"}}', reason)
        if not finish:
            return b": tool call\n\n"
        call = json.dumps([{"index": 0, **self._call}])
        return self._event(f'"delta":{{"tool_calls":{call}}}', reason)

    def stream_end(self, used: dict[str, Any] | None) -> bytes:
        if used is None:
            return b"data: [DONE]\n\n"
        return b'%b],"usage":%b}\n\ndata: [DONE]\n\n' % (self._chunk_head, msgspec.json.encode(used))

    def _event(self, inner: str, reason: str) -> bytes:
        choices = ",".join(
            f'{{"index":{index},{inner},"logprobs":null,"finish_reason":{reason}}}' for index in range(self._choices)
        )
        return b"%b%b]}\n\n" % (self._chunk_head, choices.encode())
