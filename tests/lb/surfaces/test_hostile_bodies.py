"""Bodies that nobody should send: never an exception, never much time, sane defaults."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.request import RequestInfo, SurfaceName
from lb.surfaces import SURFACES
from lb.surfaces.fields import named_models

DEEP = 100_000
HOSTILE = {
    "empty": b"",
    "spaces": b"   \n",
    "null": b"null",
    "number": b"3",
    "string": b'"text"',
    "array": b"[]",
    "half": b'{"model":"m","messages":[{"role":',
    "trailing comma": b'{"model":"m",}',
    "trailing bytes": b'{"model":"m"} x',
    "not a number": b'{"model":"m","temperature":NaN}',
    "infinity": b'{"model":"m","max_tokens":Infinity}',
    "utf-16": json.dumps({"model": "m", "prompt": "x"}).encode("utf-16"),
    "bom": b'\xef\xbb\xbf{"model":"m"}',
    "broken utf-8": b'{"model":"\xff\xfe","prompt":"\xc3"}',
    "lone surrogate": b'{"model":"\\ud800","prompt":"\\ud800"}',
    "nul": b'{"model":"a\\u0000b"}\x00',
    "deep arrays": b'{"model":"m","messages":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"messages":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "deep and open": b"[" * DEEP,
    "deep where a limit belongs": b'{"max_tokens":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "long integer": b'{"max_tokens":' + b"9" * 100_000 + b"}",
    "float limit": b'{"max_tokens":1e400,"n":1e99}',
    "gzip": b"\x1f\x8b\x08" + bytes(2000),
    "many keys": b"{" + b",".join(b'"k%d":1' % number for number in range(50_000)) + b"}",
    "many models": b"{" + b",".join(b'"model":"m"' for _ in range(50_000)) + b"}",
    "base64 to the end": b'{"messages":[{"content":"' + b"QUJD" * 50_000,
    "many prompts": b'{"prompt":[' + b",".join(b'"a"' for _ in range(50_000)) + b"]}",
}


@pytest.mark.parametrize("surface", list(SurfaceName))
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_survived_quickly(surface: SurfaceName, name: str) -> None:
    info = RequestInfo("r", surface=surface)
    began = time.process_time()
    SURFACES[surface].read_request(HOSTILE[name], info)
    assert time.process_time() - began < 0.05
    assert info.prompt_bytes >= 0
    assert info.choices >= 1
    assert info.max_tokens is None or 0 <= info.max_tokens < 1 << 31


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":3,"max_tokens":5,"messages":[]}', (None, 5, False)),
        (b'{"model":"m","max_tokens":"12","stream":"true"}', ("m", 12, True)),
        (b'{"model":"m","max_tokens":12.0,"stream":1}', ("m", 12, True)),
        (b'{"model":"m","max_tokens":{"a":1},"stream":null}', ("m", None, False)),
        (b'{"model":"m","max_tokens":[1],"stream":[]}', ("m", None, False)),
        (b'{"model":["m"],"stream":true}', (None, None, True)),
        (b'{"model":"first","model":"last"}', ("last", None, False)),
        (b'{"model":"","stream":false}', (None, None, False)),
        (b'{"model":null,"n":null,"messages":null}', (None, None, False)),
    ],
)
def test_wrong_types_cost_only_their_own_field(body: bytes, expected: tuple[str | None, int | None, bool]) -> None:
    info = RequestInfo("r")
    SURFACES[SurfaceName.CHAT].read_request(body, info)
    assert (info.model, info.max_tokens, info.stream) == expected


def test_an_unreadable_body_leaves_what_was_known() -> None:
    for surface in SurfaceName:
        info = RequestInfo("r", model="from-path", choices=1, session=5)
        SURFACES[surface].read_request(b"\x1f\x8b not json", info)
        assert (info.model, info.session, info.prompt_bytes, info.prefix) == ("from-path", 5, 0, ())


@pytest.mark.parametrize(
    ("body", "models"),
    [
        (b'{"model":"m"}', {"m"}),
        (b'{"model":"allowed","Model":"other","MODEL":"third"}', {"allowed", "other", "third"}),
        (b'{"mod\\u0065l":"escaped"}', {"escaped"}),
        (b'{"nested":{"model":"no"}}', set()),
        (b'{"model":""}', set()),
        (b'{"model":5}', None),
        (b'{"model":"m","temperature":NaN}', None),
        (b'\xef\xbb\xbf{"model":"m"}', None),
        (b'{"model":"m"}'.decode().encode("utf-16"), None),
        (b"[]", None),
        (b"[" * DEEP, None),
        (b"", None),
    ],
)
def test_all_models_that_a_body_may_mean(body: bytes, models: set[str] | None) -> None:
    assert named_models(body) == models


def test_absurd_choices_are_bounded() -> None:
    info = RequestInfo("r")
    SURFACES[SurfaceName.CHAT].read_request(b'{"n":1000000000}', info)
    assert info.choices == 1024
    info = RequestInfo("r")
    SURFACES[SurfaceName.CHAT].read_request(b'{"n":-5}', info)
    assert info.choices == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["model", "messages", "prompt", "input", "max_tokens", "n", "stream", "tools", "options", "parameters", "inputs",
     "sampling_params", "text", "input_ids", "images", "context", "documents", "query", "text_input", "metadata",
     "user"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(body=st.dictionaries(NAMES, JSON, max_size=8), surface=st.sampled_from(list(SurfaceName)))
def test_any_json_is_read(body: dict[str, object], surface: SurfaceName) -> None:
    info = RequestInfo("r", surface=surface)
    SURFACES[surface].read_request(json.dumps(body).encode(), info)
    assert info.prompt_bytes >= 0
    assert 0 <= info.prompt_wide_ratio <= 1
    assert 1 <= info.choices <= 1024
    assert info.prompt_tokens is None or info.prompt_tokens > 0
    model = body.get("model")
    readable = surface not in (
        SurfaceName.OTHER,
        SurfaceName.WEBSOCKET,
        SurfaceName.TRITON_GENERATE,
        SurfaceName.TRITON_INFER,
    )
    if isinstance(model, str) and model and readable:
        assert info.model == model


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=300), surface=st.sampled_from(list(SurfaceName)))
def test_any_bytes_are_survived(body: bytes, surface: SurfaceName) -> None:
    info = RequestInfo("r", surface=surface)
    SURFACES[surface].read_request(body, info)
    assert info.choices >= 1
