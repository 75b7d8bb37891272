"""Bodies in pieces: however the network cuts them, what comes out is the body, and nothing behind it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.errors import ProxyError, Reason
from lb.proxy.body import BodyReader
from lb.proxy.head import HeadReader
from lb.settings import LimitSettings

LIMIT = 1 << 20


def reader(length: int, limit: int = LIMIT) -> BodyReader:
    return BodyReader(length, HeadReader(LimitSettings()), limit)


def chunked(pieces: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece) + b"0\r\n\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 5000), max_size=12))
def test_a_chunked_body_does_not_depend_on_how_it_arrives(pieces: list[bytes], places: list[int]) -> None:
    body = reader(-1)
    taken = [body.take(part) for part in cut(chunked(pieces), places)]
    assert b"".join(piece for piece, _ in taken) == b"".join(pieces)
    assert all(rest == b"" for _, rest in taken)
    assert body.complete
    assert not body.overrun


@given(st.binary(max_size=500), st.binary(max_size=100), st.lists(st.integers(0, 5000), max_size=8))
def test_a_body_with_a_length_ends_there_and_hands_back_the_rest(data: bytes, behind: bytes, places: list[int]) -> None:
    body = reader(len(data))
    out, rest = b"", b""
    for part in cut(data + behind, places):
        piece, more = (b"", part) if body.complete else body.take(part)
        out, rest = out + piece, rest + more
    assert (out, rest) == (data, behind if data or behind else b"")
    assert body.complete or not data


def test_a_further_request_behind_a_chunked_body_is_noticed() -> None:
    body = reader(-1)
    piece, rest = body.take(chunked([b"hello"]) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (piece, rest, body.complete, body.overrun) == (b"hello", b"", True, True)


def test_many_small_chunks_are_no_abuse_and_long_extensions_are() -> None:
    body = reader(-1)
    body.take(chunked([b"x"] * 20_000))
    assert body.received_bytes == 20_000
    with pytest.raises(ProxyError) as caught:
        reader(-1).take(chunked([b"x"] * 20, b";a=" + b"b" * 1000))
    assert caught.value.reason is Reason.BAD_REQUEST


def test_a_chunked_body_past_the_limit_is_refused_as_soon_as_it_is() -> None:
    body = reader(-1, limit=10)
    body.take(b"a\r\n0123456789\r\n")
    with pytest.raises(ProxyError) as caught:
        body.take(b"1\r\nx\r\n")
    assert (caught.value.status, caught.value.reason) == (413, Reason.BODY_TOO_LARGE)


@pytest.mark.parametrize(
    "data", [b"5\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX0\r\n\r\n", b"zz\r\n"]
)
def test_broken_framing_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyError) as caught:
        reader(-1).take(data)
    assert caught.value.status == 400
