"""What is read of a client is copied out whole, however it begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.proxy.input import Input

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\n\r\n"
LONG = b"x" * 9000


def apart(raw: bytes) -> tuple[bytes, bytes]:
    read = Input()
    read.buffer[:] = b"\r\n\r\n" * (len(read.buffer) // 4)  # what an earlier read left
    read.buffer[: len(raw)] = raw
    assert read.whole(len(raw)) == raw
    return read.apart(len(raw))


def test_a_long_body_is_taken_off_its_head() -> None:
    assert apart(HEAD + LONG) == (HEAD, LONG)
    assert apart(HEAD + b"\r\n\r\n" + LONG) == (HEAD, b"\r\n\r\n" + LONG)


@pytest.mark.parametrize(
    "raw",
    [HEAD, HEAD + b"short", LONG, b"\r\n" + HEAD + LONG, b"\r\n\r\n" + HEAD + LONG, b"a" * 8190 + b"\r\n\r\n" + LONG],
    ids=["no body", "short body", "no end of a head", "empty line first", "two empty lines first", "end too far"],
)
def test_all_else_stays_in_one_piece(raw: bytes) -> None:
    assert apart(raw) == (raw, b"")


@given(st.binary(max_size=300), st.sampled_from((0, 8000, 20_000)))
def test_no_byte_is_lost(raw: bytes, more: int) -> None:
    raw += b"y" * more
    assert b"".join(apart(raw)) == raw
