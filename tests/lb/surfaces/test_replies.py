"""Usage, ends and errors, judged on what real runtimes sent."""

import json
from collections.abc import Callable

import pytest

from lb.request import SurfaceName, Usage
from lb.surface import StreamEnd, StreamFormat
from lb.surfaces import SURFACES
from lb.surfaces.progress import closing, events_in

Recording = Callable[[str], bytes]
S = SurfaceName
TAIL = 16_384


@pytest.mark.parametrize(
    ("surface", "name", "usage"),
    [
        (S.CHAT, "vllm-0.32/chat_stream", Usage(18, 5, None)),
        (S.CHAT, "llama.cpp-b11434/chat_stream", Usage(18, 4, 17)),
        (S.LLAMACPP, "llama.cpp-b11434/completion", Usage(2, 3, 1)),
        (S.LLAMACPP, "llama.cpp-b11434/completion_stream", Usage(2, 3, 0)),
        (S.CHAT, "ollama-0.17.4/chat_nonstream", Usage(9, 8, None)),
        (S.CHAT, "ollama-0.17.4/chat_stream", Usage(9, 8, None)),
        (S.COMPLETIONS, "ollama-0.17.4/completion_stream", Usage(9, 8, None)),
        (S.COMPLETIONS, "ollama-0.17.4/completion_nonstream", Usage(9, 8, None)),
        (S.OLLAMA_CHAT, "ollama-0.17.4/api_chat_stream", Usage(2, 5, None)),
        (S.OLLAMA_GENERATE, "ollama-0.17.4/api_generate", Usage(2, 5, None)),
        (S.CHAT, "vllm-0.32/sigterm_stream_tail", None),
        (S.CHAT, "vllm-0.32/err_model", None),
        (S.TRITON_GENERATE, "tritonserver-2.51.0/generate_stream", None),
        (S.TRITON_INFER, "mlserver-1.7.1/infer", None),
    ],
)
def test_usage(recording: Recording, surface: SurfaceName, name: str, usage: Usage | None) -> None:
    assert SURFACES[surface].read_usage(recording(name)[-TAIL:]) == usage


@pytest.mark.parametrize(
    ("surface", "name", "end"),
    [
        (S.CHAT, "vllm-0.32/chat_stream", StreamEnd.COMPLETE),
        (S.CHAT, "vllm-0.32/sigterm_stream_tail", StreamEnd.TRUNCATED),
        (S.CHAT, "llama.cpp-b11434/chat_stream", StreamEnd.COMPLETE),
        (S.CHAT, "llama.cpp-b11434/sigterm_stream_tail", StreamEnd.TRUNCATED),
        (S.LLAMACPP, "llama.cpp-b11434/completion_stream", StreamEnd.COMPLETE),
        (S.CHAT, "ollama-0.17.4/chat_stream", StreamEnd.COMPLETE),
        (S.COMPLETIONS, "ollama-0.17.4/completion_stream", StreamEnd.COMPLETE),
        (S.CHAT, "ollama-0.17.4/sigterm_stream_tail", StreamEnd.TRUNCATED),
        (S.OLLAMA_CHAT, "ollama-0.17.4/api_chat_stream", StreamEnd.COMPLETE),
        (S.TRITON_GENERATE, "tritonserver-2.51.0/generate_stream", StreamEnd.UNKNOWN),
        (S.TRITON_GENERATE, "tritonserver-2.51.0/sigterm_generate_stream", StreamEnd.UNKNOWN),
        (S.TRITON_GENERATE, "mlserver-1.7.1/generate_stream", StreamEnd.UNKNOWN),
        (S.TRITON_GENERATE, "mlserver-1.7.1/sigterm_stream", StreamEnd.UNKNOWN),
    ],
)
def test_stream_end(recording: Recording, surface: SurfaceName, name: str, end: StreamEnd) -> None:
    assert SURFACES[surface].stream_end(recording(name)[-TAIL:]) is end


def chunk(reason: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":' + reason.encode() + b"}]}\n\n"


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("tail", "end"),
    [
        (chunk("null") + chunk('"stop"') + DONE, StreamEnd.COMPLETE),
        (chunk("null") + chunk('"tool_calls"'), StreamEnd.COMPLETE),  # no [DONE], but the answer is whole
        (chunk("null") + DONE, StreamEnd.TRUNCATED),  # [DONE], but no last chunk
        (chunk('""') + DONE, StreamEnd.TRUNCATED),
        (chunk("null") + chunk('"abort"') + DONE, StreamEnd.TRUNCATED),
        (chunk('"length"') + b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n' + DONE, StreamEnd.COMPLETE),
        (chunk("null") + b'data: {"error":{"message":"boom","code":500}}\n\n' + DONE, StreamEnd.TRUNCATED),
        (b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n', StreamEnd.COMPLETE),  # spaces
        (b'data: {"choices":[{"delta":{"content":"\\"finish_reason\\":\\"stop\\""}}]}\n\n' + DONE, StreamEnd.TRUNCATED),
        (b"", StreamEnd.TRUNCATED),
    ],
)
def test_ends_of_openai_streams(tail: bytes, end: StreamEnd) -> None:
    assert SURFACES[S.CHAT].stream_end(tail) is end


@pytest.mark.parametrize(
    ("surface", "tail", "end"),
    [
        (S.RESPONSES, b'event: response.completed\ndata: {"type":"response.completed"}\n\n', StreamEnd.COMPLETE),
        (S.RESPONSES, b'event: response.incomplete\ndata: {"type":"response.incomplete"}\n\n', StreamEnd.COMPLETE),
        (S.RESPONSES, b'event: response.failed\ndata: {"type":"response.failed"}\n\n', StreamEnd.TRUNCATED),
        (S.RESPONSES, b'event: response.output_text.delta\ndata: {"delta":"x"}\n\n', StreamEnd.TRUNCATED),
        (S.RESPONSES, b'x"}],"usage":{"input_tokens":3,"output_tokens":9}}}\n\n', StreamEnd.COMPLETE),
        (S.MESSAGES, b'event: message_stop\ndata: {"type":"message_stop"}\n\n', StreamEnd.COMPLETE),
        (S.MESSAGES, b'event: message_delta\ndata: {"type":"message_delta"}\n\n', StreamEnd.TRUNCATED),
        (S.MESSAGES, b'event: error\ndata: {"type":"error"}\n\n', StreamEnd.TRUNCATED),
        (S.SGLANG, b'data: {"text":"a","meta_info":{"finish_reason":{"type":"length"}}}\n\n', StreamEnd.COMPLETE),
        (S.SGLANG, b'data: {"meta_info":{"finish_reason":{"type":"abort"}}}\n\n' + DONE, StreamEnd.TRUNCATED),
        (S.SGLANG, b'data: {"text":"a","meta_info":{"finish_reason":null}}\n\n' + DONE, StreamEnd.TRUNCATED),
        (S.TGI, b'data:{"token":{"id":1},"generated_text":"a","details":null}\n\n', StreamEnd.COMPLETE),
        (S.TGI, b'data:{"token":{"id":1},"generated_text":null,"details":null}\n\n', StreamEnd.TRUNCATED),
        (S.TGI, b'data:{"error":"Request failed","error_type":"generation"}\n\n', StreamEnd.TRUNCATED),
        (S.TRITON_GENERATE, b'data: {"text_output":"a"}\n\ndata: {"error":"died"}\n\n', StreamEnd.TRUNCATED),
        (S.OLLAMA_GENERATE, b'{"response":"a","done":false}\n', StreamEnd.TRUNCATED),
        (S.OLLAMA_GENERATE, b'{"response":"a","done":false}\n{"error":"died"}\n', StreamEnd.TRUNCATED),
        (S.OLLAMA_GENERATE, b'3,4,5],"total_duration":1,"prompt_eval_count":2,"eval_count":3}\n', StreamEnd.COMPLETE),
        (S.LLAMACPP, b'data: {"content":"a","stop":false}\n\n:\n\n:\n\n', StreamEnd.TRUNCATED),
        (S.AUDIO, b'data: {"type":"transcript.text.done"}\n\n', StreamEnd.COMPLETE),
        (S.AUDIO, b"\x00\x01RIFF", StreamEnd.UNKNOWN),
        (S.EMBEDDINGS, b"{}", StreamEnd.UNKNOWN),
        (S.CUSTOM, b"{}", StreamEnd.UNKNOWN),
        (S.OTHER, b"", StreamEnd.UNKNOWN),
    ],
)  # fmt: skip
def test_ends_of_other_streams(surface: SurfaceName, tail: bytes, end: StreamEnd) -> None:
    assert SURFACES[surface].stream_end(tail) is end


@pytest.mark.parametrize(
    ("surface", "tail", "usage"),
    [
        (S.RESPONSES, b'"usage":{"input_tokens":30,"input_tokens_details":{"cached_tokens":16},"output_tokens":9}}',
         Usage(30, 9, 16)),
        (S.MESSAGES,
         b'{"message":{"usage":{"input_tokens":20,"cache_read_input_tokens":100,"output_tokens":1}}}{"usage":{"output_tokens":42}}',
         Usage(120, 42, 100)),
        (S.MESSAGES, b'{"type":"message_delta","usage":{"output_tokens":42}}', Usage(None, 42, None)),
        (S.SGLANG, b'{"meta_info":{"prompt_tokens":7,"completion_tokens":8,"cached_tokens":4}}', Usage(7, 8, 4)),
        (S.TGI, b'{"generated_text":"a","details":{"finish_reason":"length","generated_tokens":20}}',
         Usage(None, 20, None)),
        (S.OLLAMA_EMBED, b'{"embeddings":[[0.1]],"total_duration":5,"prompt_eval_count":2}', Usage(2, None, None)),
        (S.CHAT, b'{"usage": {"prompt_tokens": 5, "completion_tokens": 6}}', Usage(5, 6, None)),
        (S.CHAT, b'{"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\ndata: {"usage":null}\n\n', Usage(5, 6, None)),
        (S.CHAT, b'{"content":"\\"usage\\":{\\"prompt_tokens\\":999}"}', None),
        (S.CHAT, b'{"usage":{"prompt_tokens":"many"}}', None),
        (S.EMBEDDINGS, b'{"data":[],"usage":{"prompt_tokens":12,"total_tokens":12}}', Usage(12, None, None)),
        (S.RERANK, b'{"results":[],"usage":{"total_tokens":56}}', Usage(56, None, None)),
        (S.OTHER, b'{"usage":{"prompt_tokens":1}}', None),
    ],
)  # fmt: skip
def test_usage_of_other_apis(surface: SurfaceName, tail: bytes, usage: Usage | None) -> None:
    assert SURFACES[surface].read_usage(tail) == usage


@pytest.mark.parametrize("surface", list(SurfaceName))
def test_every_surface_takes_any_tail(surface: SurfaceName) -> None:
    for tail in (
        b"",
        b"\xff\xfe",
        b'"usage"',
        b'"usage":{',
        b'"finish_reason"',
        b'"finish_reason":',
        b'"eval_count":',
        b"{" * 9,
    ):
        assert isinstance(SURFACES[surface].stream_end(tail), StreamEnd)
        assert SURFACES[surface].read_usage(tail) is None


@pytest.mark.parametrize(
    ("surface", "name"),
    [
        (S.CHAT, "vllm-0.32/err_model"),
        (S.CHAT, "ollama-0.17.4/err_bad_json"),
        (S.LLAMACPP, "llama.cpp-b11434/err_bad"),
        (S.OLLAMA_CHAT, "ollama-0.17.4/api_err_model"),
        (S.TRITON_INFER, "tritonserver-2.51.0/err_bad_json"),
    ],
)
def test_error_bodies_have_what_the_runtimes_own_have(recording: Recording, surface: SurfaceName, name: str) -> None:
    theirs, ours = json.loads(recording(name)), json.loads(SURFACES[surface].error_body(503, "no_replica", "none left"))
    if isinstance(theirs["error"], dict):
        assert set(theirs["error"]) <= set(ours["error"])
        assert ours["error"]["message"] == "none left"
    else:
        assert ours["error"] == "none left"


@pytest.mark.parametrize("surface", list(SurfaceName))
@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 429, 500, 502, 503, 504])
def test_error_bodies_are_json_and_carry_reason_and_message(surface: SurfaceName, status: int) -> None:
    message = 'say "no" to\nnewlines \u00e9'
    error = json.loads(SURFACES[surface].error_body(status, "queue_full", message))
    assert message in (error["error"], error["error"]["message"] if isinstance(error["error"], dict) else None)
    assert "queue_full" in str(error) or error["error_type"] == "overloaded"


def test_error_types_tell_an_sdk_what_happened() -> None:
    def kind(surface: SurfaceName, status: int) -> str:
        return str(json.loads(SURFACES[surface].error_body(status, "r", "m"))["error"]["type"])

    assert kind(S.CHAT, 429) == kind(S.MESSAGES, 429) == "rate_limit_error"
    assert kind(S.CHAT, 400) == "invalid_request_error"
    assert kind(S.CHAT, 503) == "server_error"
    assert kind(S.MESSAGES, 503) == "overloaded_error"
    assert json.loads(SURFACES[S.TGI].error_body(429, "r", "m"))["error_type"] == "overloaded"


@pytest.mark.parametrize("surface", list(SurfaceName))
def test_error_events_are_framed_as_the_stream_is(surface: SurfaceName) -> None:
    api = SURFACES[surface]
    event = api.error_event("upstream_reset", "the replica\nis gone")
    if api.stream_format is StreamFormat.SSE:
        assert event.endswith(b"\n\n")
        lines = event.strip().split(b"\n")
        assert all(line.startswith((b"data:", b"event: error")) for line in lines)
        assert json.loads(lines[-1].removeprefix(b"data:"))["error"]
    elif api.stream_format is StreamFormat.NDJSON:
        assert event.count(b"\n") == 1
        assert json.loads(event)["error"]
    else:
        assert event == b""


@pytest.mark.parametrize(
    ("chunk", "events"),
    [
        (b'data: {"a":1}\n\n', 1),
        (b'data: {"a":1}\n\ndata: {"a":2}\n\ndata: [DONE]\n\n', 3),
        (b'data:{"a":"data: no\\ndata:"}\n\n', 1),
        (b'data: {"a":1}\r\n\r\ndata: {"a":2}\r\n\r\n', 2),
        (b'event: content_block_delta\ndata: {"a":1}\n\n', 1),
        (b'event: ping\ndata: {"type": "ping"}\n\n', 0),
        (b'event: ping\ndata: {"type": "ping"}\n\nevent: content_block_delta\ndata: {"a":1}\n\n', 1),
        (b": ping - 2026-01-01\n\n", 0),
        (b":\n\n", 0),
        (b':\n\ndata: {"a":1}\n\n', 1),
        (b"\n", 0),
        (b"\r\n", 0),
        (b"", 0),
        (b"data:\n\n", 0),
        (b"data: \n\n", 0),
        (b'{"response":"a"}\n', 1),
        (b'{"response":"a"}\n{"response":"b"}\n', 2),
        (b'"the rest of a line"}\n{"response":"b"}\n', 1),
        (b'rest of an event"}\n\n', 1),
        (b'rest of an event"}\n\ndata: {"a":1}\n\n', 1),
        (b"\x00\x01\x02\x03 sound", 1),
    ],
)
def test_events_in(chunk: bytes, events: int) -> None:
    assert events_in(chunk) == events


def test_events_of_recorded_streams(recording: Recording) -> None:
    for name in ("vllm-0.32/chat_stream", "llama.cpp-b11434/chat_stream", "ollama-0.17.4/chat_stream"):
        body = recording(name)
        assert events_in(body) == sum(line.startswith(b"data:") for line in body.split(b"\n"))
    assert events_in(recording("ollama-0.17.4/api_chat_stream")) == 3
    dying = recording("llama.cpp-b11434/sigterm_stream_tail")
    assert events_in(dying) == 3, "the comments after its last token are no progress"


@pytest.mark.parametrize(
    ("tail", "stream_format", "needed"),
    [
        (b'data: {"a":1}\n\n', StreamFormat.SSE, b""),
        (b'data: {"a":1}\r\n\r\n', StreamFormat.SSE, b""),
        (b'data: {"a":1}\n', StreamFormat.SSE, b"\n"),
        (b'data: {"a', StreamFormat.SSE, b"\n\n"),
        (b"", StreamFormat.SSE, b""),
        (b'{"a":1}\n', StreamFormat.NDJSON, b""),
        (b'{"a', StreamFormat.NDJSON, b"\n"),
        (b"RIFF", StreamFormat.NONE, b""),
    ],
)
def test_closing(tail: bytes, stream_format: StreamFormat, needed: bytes) -> None:
    assert closing(tail, stream_format) == needed
