"""What is read from request bodies, surface by surface."""

import json
from typing import Any

import pytest

from lb.request import RequestInfo, SurfaceName
from lb.settings import CustomSurface
from lb.surfaces import SURFACES
from lb.surfaces.custom import Custom

S = SurfaceName


def read(surface: SurfaceName, body: object, **known: Any) -> RequestInfo:
    info = RequestInfo("r", surface=surface, **known)
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    SURFACES[surface].read_request(raw, info)
    return info


def size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


MESSAGES = [{"role": "system", "content": "be short"}, {"role": "user", "content": "hello there"}]


def test_chat() -> None:
    info = read(S.CHAT, {"model": "m", "messages": MESSAGES, "max_tokens": 9, "n": 3, "stream": True, "user": "u"})
    assert (info.model, info.max_tokens, info.choices, info.stream) == ("m", 9, 3, True)
    assert info.prompt_bytes == size(MESSAGES)
    assert info.prompt_wide_ratio == 0
    assert info.session is not None
    assert info.prompt_tokens is None


def test_chat_tools_count_as_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 500}}]
    info = read(S.CHAT, {"model": "m", "messages": MESSAGES, "tools": tools})
    assert info.prompt_bytes == size(MESSAGES) + size(tools)


def test_the_newer_limit_wins() -> None:
    assert read(S.CHAT, {"max_completion_tokens": 5, "max_tokens": 9}).max_tokens == 5
    assert read(S.CHAT, {"max_completion_tokens": None, "max_tokens": 9}).max_tokens == 9


@pytest.mark.parametrize("limit", [0, -1, None, 1 << 40])
def test_limits_that_are_none(limit: int | None) -> None:
    assert read(S.CHAT, {"max_tokens": limit}).max_tokens is None


def test_session_prefers_the_header_then_the_cache_key() -> None:
    body = {"model": "m", "messages": MESSAGES, "user": "u", "prompt_cache_key": "k"}
    assert read(S.CHAT, body, session=7).session == 7
    assert read(S.CHAT, body).session == read(S.CHAT, {**body, "user": "other"}).session
    assert read(S.CHAT, body).session != read(S.CHAT, {**body, "prompt_cache_key": "other"}).session
    assert read(S.CHAT, {"user": ""}).session is None


def test_completions_with_text_texts_and_tokens() -> None:
    assert read(S.COMPLETIONS, {"prompt": "hello", "max_tokens": 4, "best_of": 3}).choices == 3
    assert read(S.COMPLETIONS, {"prompt": "hello"}).prompt_bytes == 7
    texts = read(S.COMPLETIONS, {"prompt": ["a", "b", "c"], "n": 2})
    assert texts.choices == 6
    assert texts.prompt_bytes > 0
    ids = read(S.COMPLETIONS, {"prompt": [5, 6, 7]})
    assert (ids.prompt_tokens, ids.choices, ids.prompt_bytes) == (3, 1, 0)
    several = read(S.COMPLETIONS, b'{"prompt": [[1, 2, 3], [4, 5]]}')
    assert (several.prompt_tokens, several.choices) == (5, 2)
    assert read(S.COMPLETIONS, {"prompt": []}).prompt_tokens is None


def test_embeddings_generate_nothing() -> None:
    info = read(S.EMBEDDINGS, {"model": "e", "input": ["one", "two"]})
    assert (info.model, info.max_tokens, info.choices, info.stream) == ("e", 0, 1, False)
    assert info.prompt_bytes == size(["one", "two"])
    assert read(S.EMBEDDINGS, {"input": [[1, 2], [3]]}).prompt_tokens == 3
    assert read(S.EMBEDDINGS, {"content": "llama.cpp"}).prompt_bytes == 11


def test_rerank_reads_the_query_with_each_document() -> None:
    info = read(S.RERANK, {"model": "r", "query": "q" * 98, "documents": ["d" * 98] * 10})
    assert info.max_tokens == 0
    assert info.prompt_bytes == pytest.approx(10 * 200, rel=0.1)
    assert read(S.SCORE, {"text_1": "a", "text_2": ["b", "c"]}).prompt_bytes > 6


def test_responses() -> None:
    info = read(
        S.RESPONSES, {"model": "m", "input": "hi", "instructions": "be", "max_output_tokens": 8, "stream": True}
    )
    assert (info.model, info.max_tokens, info.stream, info.prompt_bytes) == ("m", 8, True, 8)


def test_anthropic() -> None:
    body = {"model": "m", "system": "be", "messages": MESSAGES, "max_tokens": 8, "metadata": {"user_id": "u"}}
    info = read(S.MESSAGES, body)
    assert (info.model, info.max_tokens, info.stream) == ("m", 8, False)
    assert info.prompt_bytes == size(MESSAGES) + 4
    assert info.session is not None
    assert read(S.MESSAGES, {**body, "metadata": 3}).max_tokens == 8


def test_generate_tells_sglang_from_tgi() -> None:
    sglang = read(S.SGLANG, {"text": "hello", "sampling_params": {"max_new_tokens": 5, "n": 2}, "lora_path": "l"})
    assert (sglang.surface, sglang.max_tokens, sglang.choices, sglang.adapter) == (S.SGLANG, 5, 2, "l")
    tgi = read(S.SGLANG, {"inputs": "hello", "parameters": {"max_new_tokens": 6, "best_of": 2, "adapter_id": "a"}})
    assert (tgi.surface, tgi.max_tokens, tgi.choices, tgi.adapter) == (S.TGI, 6, 2, "a")
    assert (sglang.prompt_bytes, tgi.prompt_bytes) == (7, 7)
    assert read(S.SGLANG, {"input_ids": [1, 2, 3, 4]}).prompt_tokens == 4
    assert read(S.TGI, {"inputs": "x"}, stream=True).stream, "the path has said so"
    assert read(S.SGLANG, {"text": "x", "stream": True}).stream
    batch = read(S.SGLANG, {"text": ["a", "b"], "sampling_params": [{"max_new_tokens": 3}, {"max_new_tokens": 4}]})
    assert (batch.choices, batch.max_tokens) == (2, 3)
    assert read(S.TGI, {}).surface is S.TGI
    assert json.loads(SURFACES[tgi.surface].error_body(429, "queue_full", "full"))["error"] == "full"


def test_triton() -> None:
    info = read(S.TRITON_GENERATE, {"text_input": "hello", "max_tokens": 4}, model="path")
    assert (info.model, info.max_tokens, info.prompt_bytes) == ("path", 4, 7)
    assert read(S.TRITON_GENERATE, {"text_input": "hello", "parameters": {"max_tokens": 5}}).max_tokens == 5
    tensors = {
        "inputs": [
            {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": ["hello"]},
            {"name": "max_tokens", "datatype": "INT32", "shape": [1, 1], "data": [[12]]},
        ]
    }
    infer = read(S.TRITON_INFER, tensors)
    assert (infer.max_tokens, infer.prompt_bytes) == (12, 9)
    numbers = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
    assert read(S.TRITON_INFER, numbers).max_tokens == 0
    binary = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "parameters": {"binary_data_size": 4}}]}).encode()
    assert read(S.TRITON_INFER, binary + b"\x00\x01\xff\x7f").max_tokens == 0
    assert read(S.TRITON_GENERATE, tensors).prompt_bytes == 9


def test_llamacpp() -> None:
    info = read(S.LLAMACPP, {"prompt": "hello", "n_predict": 5, "stream": True})
    assert (info.max_tokens, info.stream, info.prompt_bytes) == (5, True, 7)
    assert read(S.LLAMACPP, {"prompt": "hello", "n_predict": -1}).max_tokens is None
    assert read(S.LLAMACPP, {"prompt": [1, 2, 3]}).prompt_tokens == 3
    mixed = read(S.LLAMACPP, {"prompt": [1, "two", 3]})
    assert (mixed.prompt_tokens, mixed.prompt_bytes) == (None, size([1, "two", 3]))
    assert read(S.LLAMACPP, {"input_prefix": "def f(", "input_suffix": "return 1"}).prompt_bytes == 18


def test_ollama_streams_unless_told_otherwise() -> None:
    info = read(S.OLLAMA_GENERATE, {"model": "m", "prompt": "hello", "options": {"num_predict": 7}})
    assert (info.model, info.stream, info.max_tokens, info.prompt_bytes) == ("m", True, 7, 7)
    assert not read(S.OLLAMA_CHAT, {"model": "m", "messages": MESSAGES, "stream": False}).stream
    assert read(S.OLLAMA_CHAT, {"model": "m", "messages": MESSAGES}).prompt_bytes == size(MESSAGES)
    assert read(S.OLLAMA_GENERATE, {"options": {"num_predict": -2}}).max_tokens is None
    assert read(S.OLLAMA_GENERATE, b"not json").stream
    plain = read(S.OLLAMA_GENERATE, {"prompt": "hi"}).prompt_bytes
    assert read(S.OLLAMA_GENERATE, {"prompt": "hi", "images": ["QUJD", "QUJD"]}).prompt_bytes == plain + 8192
    assert read(S.OLLAMA_GENERATE, {"prompt": "hi", "context": [1, 2, 3]}).prompt_bytes == plain + 12
    embed = read(S.OLLAMA_EMBED, {"model": "m", "input": ["a", "b"]})
    assert (embed.stream, embed.max_tokens, embed.choices) == (False, 0, 1)
    assert read(S.OLLAMA_EMBED, {"model": "m", "prompt": "legacy"}).prompt_bytes == 8


def test_audio_uploads_are_read_at_their_ends_alone() -> None:
    def part(name: str, value: bytes, more: str = "") -> bytes:
        return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"

    sound = part("file", bytes(range(256)) * 400, '; filename="a.wav"\r\nContent-Type: audio/wav')
    for body in (
        part("model", b"whisper") + part("stream", b"true") + sound + b"--b--\r\n",
        sound + part("model", b"whisper") + part("stream", b"true") + b"--b--\r\n",
    ):
        info = read(S.AUDIO, body)
        assert (info.model, info.stream) == ("whisper", True)
    speech = read(S.AUDIO, {"model": "tts", "input": "hello", "voice": "v"})
    assert (speech.model, speech.prompt_bytes) == ("tts", 7)


def test_opaque_surfaces_read_nothing() -> None:
    for surface in (S.OTHER, S.WEBSOCKET):
        assert read(surface, {"model": "m", "prompt": "x"}) == RequestInfo("r", surface=surface)


def test_custom_paths_reach_into_arrays_and_take_what_is_there() -> None:
    api = Custom(CustomSurface(path="/x", prompt="items.0.text", max_tokens="cfg.len", stream="cfg.s", model="cfg.m"))
    info = RequestInfo("r", surface=S.CUSTOM)
    api.read_request(b'{"items":[{"text":"hello"}],"cfg":{"len":5.0,"s":true,"m":"mm"}}', info)
    assert (info.prompt_bytes, info.max_tokens, info.stream, info.model) == (7, 5, True, "mm")
    for body in (b"[]", b'{"items":[]}', b'{"items":{"0":3},"cfg":3}', b"{", b'{"cfg":{"len":"x","m":[1]}}', b""):
        info = RequestInfo("r", surface=S.CUSTOM)
        api.read_request(body, info)
        assert (info.max_tokens, info.model, info.stream) == (None, None, False)
