"""Remembered heads: what is cut out of the key is exactly the digits of Content-Length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.proxy.memo import NO_LENGTH, Finder, Memo, measured

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
VALUE = st.text("abcdefghijklmnopqrstuvwxyz0123456789 :/", max_size=20)


def head(lines: list[tuple[str, str]]) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"POST /v1/x HTTP/1.1\r\n{fields}\r\n".encode()


def split(raw: bytes) -> tuple[bytes, int]:
    return measured(raw, raw.index(b"\r\n\r\n"))


@pytest.mark.parametrize("name", ["Content-Length", "content-length"])
@pytest.mark.parametrize(("one", "other"), [("5", "6"), ("0", "15000"), ("7", "007")])
def test_heads_that_differ_in_length_alone_share_a_key(name: str, one: str, other: str) -> None:
    first, second = split(head([("Host", "a"), (name, one)])), split(head([("Host", "a"), (name, other)]))
    assert first[0] == second[0]
    assert (first[1], second[1]) == (int(one), int(other))


@pytest.mark.parametrize(
    "value", ["", "+5", "-5", "5 ", "0x5", "5,5", "5_0", "\u0665", "1" * 16], ids=lambda value: value or "empty"
)
def test_what_is_not_a_plain_number_stays_in_the_key(value: str) -> None:
    raw = head([("Content-Length", value)])
    assert split(raw) == (raw, NO_LENGTH)


@pytest.mark.parametrize("name", ["X-Content-Length", "CONTENT-LENGTH", "Content-Length-X", "Content_Length"])
def test_a_length_under_another_name_stays_in_the_key(name: str) -> None:
    raw = head([(name, "5")])
    assert split(raw) == (raw, NO_LENGTH)


def test_bytes_behind_the_head_are_not_part_of_it() -> None:
    raw = head([("Host", "a")])
    assert measured(raw + b"\r\nContent-Length: 5\r\n", raw.index(b"\r\n\r\n")) == (raw, NO_LENGTH)


@given(st.lists(st.tuples(TOKEN, VALUE), max_size=6), st.lists(st.tuples(TOKEN, VALUE), max_size=6))
def test_equal_keys_come_from_equal_heads(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    first, second = head([*one, ("Content-Length", "12")]), head([*other, ("Content-Length", "34")])
    assert (split(first)[0] == split(second)[0]) == (first.replace(b": 12\r\n", b": 34\r\n") == second)


def test_a_full_memo_forgets_everything_and_never_grows_beyond_its_bound() -> None:
    memo: Memo[int] = Memo(3)
    for number in range(10):
        memo.keep(b"%d" % number, number)
        assert len(memo) <= 3
        assert memo.get(b"%d" % number) == number
    assert memo.get(b"0") is None


LINES = st.lists(
    st.tuples(
        st.sampled_from(["Host", "Content-Length", "content-length", "X-A"]),
        st.sampled_from(["a", "1", "12", "007", ""]),
    ),
    max_size=4,
)


@given(st.lists(st.tuples(LINES, st.sampled_from([b"", b"{}", b"\r\n\r\n"]), st.booleans()), max_size=12))
def test_comparing_with_the_last_head_finds_what_looking_up_finds(
    arrivals: list[tuple[list[tuple[str, str]], bytes, bool]],
) -> None:
    memo: Memo[bytes] = Memo(100)
    finder = Finder(memo)
    known: dict[bytes, bytes] = {}
    for lines, body, reload in arrivals:
        raw = head(lines) + body
        if reload:
            memo.clear()
            known.clear()
        key, length = measured(raw, raw.index(b"\r\n\r\n"))
        found = finder.find(raw)
        assert (found, finder.length, raw[finder.body_at :]) == (known.get(key), length, body)
        if found is None:
            memo.keep(finder.key, key)
            known[key] = key


def test_an_incomplete_head_is_not_found() -> None:
    raw = head([("Host", "a"), ("Content-Length", "5")])
    memo: Memo[int] = Memo(3)
    finder = Finder(memo)
    assert finder.find(raw) is None
    memo.keep(finder.key, 1)
    assert [finder.find(raw) for _ in range(3)] == [1, 1, 1]
    for end in range(len(raw)):
        assert finder.find(raw[:end]) is None
        assert finder.body_at < 0
    assert finder.find(raw.replace(b": 5", b": " + b"5" * 16)) is None
