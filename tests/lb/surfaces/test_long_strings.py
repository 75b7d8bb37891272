"""What is read of a body does not depend on whether its long strings were left out on the way."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.request import RequestInfo, SurfaceName
from lb.surfaces import SURFACES, fields
from lb.surfaces.long_strings import LEAST_BODY_BYTES, Shortened, shortened

PIECES = ("lorem ipsum ", '"', "\\", "\\\\", "\n", '\\"', "你好", "1, 2, 3, ", "\x7fcut00000000", "{}[]:,", "é")


def long_text(seed: int, size: int, rarely: float) -> str:
    """Words, and now and then one of PIECES."""
    choose = random.Random(seed)
    parts = []
    left = size
    while left > 0:
        part = choose.choice(PIECES) if choose.random() < rarely else f"word{choose.randrange(1000)} "
        parts.append(part)
        left -= len(part)
    return "".join(parts)


def read(name: SurfaceName, body: bytes) -> RequestInfo:
    info = RequestInfo("r", surface=name)
    SURFACES[name].read_request(body, info)
    return info


def read_both_ways(name: SurfaceName, body: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[RequestInfo, RequestInfo]:
    short = read(name, body)
    with monkeypatch.context() as patch:
        patch.setattr(fields, "shortened", lambda body: None)
        return short, read(name, body)


def restored(short: Shortened, part: bytes) -> bytes:
    stretch = short.restored(part)
    assert stretch is not None
    assert len(stretch) == len(stretch.copy())
    return stretch.copy()


def chat(**members: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 7, "stream": True, **members}, ensure_ascii=False).encode()


TEXTS = st.builds(
    long_text, st.integers(0, 9), st.sampled_from((10, 9_000, 30_000)), st.sampled_from((0.0, 0.001, 0.2))
)
ENDS = st.sampled_from(("", "\\", "\\\\", '"', '\\"', "\n", "\\" * 70))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(ENDS, TEXTS, ENDS), min_size=1, max_size=4), st.sampled_from(("user", "metadata", "tools")))
def test_a_chat_body_reads_the_same(turns: list[tuple[str, str, str]], other: str) -> None:
    messages = [{"role": "user", "content": before + text + after} for before, text, after in turns]
    body = chat(messages=messages, **{other: turns[0][1]})
    with pytest.MonkeyPatch.context() as patch:
        short, whole = read_both_ways(SurfaceName.CHAT, body, patch)
    assert short == whole
    assert short.model == "m"
    assert short.max_tokens == 7


@pytest.mark.parametrize(
    ("name", "members"),
    [
        (SurfaceName.COMPLETIONS, {"prompt": "x " * 10_000}),
        (SurfaceName.COMPLETIONS, {"prompt": ["x " * 10_000, "y " * 10_000]}),
        (SurfaceName.COMPLETIONS, {"prompt": list(range(5000))}),
        (SurfaceName.EMBEDDINGS, {"input": "x " * 10_000}),
        (SurfaceName.RESPONSES, {"input": "x " * 10_000, "instructions": "y " * 9000}),
        (SurfaceName.MESSAGES, {"system": "x " * 10_000, "messages": [{"role": "user", "content": "y " * 9000}]}),
        (SurfaceName.OLLAMA_GENERATE, {"prompt": "x " * 10_000, "images": ["QUJD" * 5000]}),
        (SurfaceName.CHAT, {"messages": [], "user": "u" * 20_000}),
    ],
)
def test_other_bodies_read_the_same(
    name: SurfaceName, members: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    short, whole = read_both_ways(name, chat(**members), monkeypatch)
    assert short == whole
    assert short.model == "m"


def test_a_long_prompt_is_left_out_and_put_back() -> None:
    text = "word " * 10_000
    body = chat(messages=[{"role": "user", "content": text}])
    short = shortened(body)
    assert short is not None
    assert len(short.body) < 300
    assert json.loads(short.body)["model"] == "m"
    assert restored(short, short.body) == body
    assert short.left == 0


def test_several_are_put_back_in_their_places() -> None:
    body = chat(messages=[{"role": "user", "content": f"{number} " + "word " * 2000} for number in range(5)])
    short = shortened(body)
    assert short is not None
    assert 1 < short.left <= 5
    at = short.body.find(b"messages")
    assert restored(short, short.body[at:]) == body[at:]
    assert short.left == 0


@pytest.mark.parametrize("backslashes", [1, 2, 3, 64, 65, 1000])
def test_backslashes_before_a_quote_stay_together(backslashes: int) -> None:
    body = b'{"messages": "%b%b", "model": "m"}' % (b"word " * 9000, b"\\" * 2 * backslashes)
    short = shortened(body)
    if backslashes >= 32:
        assert short is None
        return
    assert short is not None
    assert json.loads(short.body)["messages"].endswith("\\" * backslashes)
    assert restored(short, short.body) == body


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1, " * 20_000 + b'"x"]',
        b'{"a": ' + b" " * 30_000 + b'"x"}',
        b"x" * 50_000,
        b'{"a": "' + b'word \\" ' * 6000 + b'"}',
    ],
)
def test_what_is_no_long_stretch_of_a_string_stays(body: bytes) -> None:
    assert shortened(body) is None


def test_a_text_that_looks_like_a_mark_is_left_alone() -> None:
    assert shortened(chat(user="\x7fcut00000000", messages="word " * 9000)) is None


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_of_what_is_not_json_nothing_else_is_read(noise: bytes, at: int) -> None:
    body = chat(messages="word " * 5000)
    broken = body[:at] + noise + body[at:] + noise
    assert len(broken) >= LEAST_BODY_BYTES
    with pytest.MonkeyPatch.context() as patch:
        short, whole = read_both_ways(SurfaceName.CHAT, broken, patch)
    assert short == whole or whole == RequestInfo("r", surface=SurfaceName.CHAT)
