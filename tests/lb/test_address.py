"""Addresses to listen on."""

from __future__ import annotations

import pytest

from lb.address import is_loopback, parse_address, show_address
from lb.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        (":8080", ("0.0.0.0", 8080)),
    ],
)
def test_addresses_are_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "8080", "127.0.0.1", "a:", "a:b", "a:-1", "a:65536", "a:99999999999", "::1:80", "[::1", "[a]:1", "http://a:1",
     "a b:1", "u@h:1", "a:٣"],
)  # fmt: skip
def test_others_are_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:8080|\[.*\]:"):
        parse_address(text)


def test_show_is_the_inverse() -> None:
    for text in ("127.0.0.1:80", "[::1]:80"):
        assert show_address(*parse_address(text)) == text


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"]))
