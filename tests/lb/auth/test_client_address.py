"""X-Forwarded-For is believed as far as trusted proxies wrote it."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.auth import client_address, forwarded_for_value

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "1.2.3.4, 10.9.9.9", "1.2.3.4"),
        ("10.0.0.1", "10.1.1.1, 10.9.9.9", "10.1.1.1"),
        ("10.0.0.1", "1.2.3.4:5555", "1.2.3.4"),
        ("fd00::1", "[2001:db8::7]:443", "2001:db8::7"),
        ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, <script>, 10.2.2.2", "10.2.2.2"),
        ("", "1.2.3.4", ""),
    ],
)
def test_client_address(peer: str, header: str, client: str) -> None:
    assert client_address(peer, header, TRUSTED) == client


def test_nobody_is_trusted_by_default() -> None:
    assert client_address("127.0.0.1", "1.2.3.4", ()) == "127.0.0.1"


def test_l05_the_header_is_replaced_for_strangers_and_extended_for_trusted_proxies() -> None:
    assert forwarded_for_value("203.0.113.9", "1.2.3.4", TRUSTED) == "203.0.113.9"
    assert forwarded_for_value("10.0.0.1", "1.2.3.4", TRUSTED) == "1.2.3.4, 10.0.0.1"
    assert forwarded_for_value("10.0.0.1", "", TRUSTED) == "10.0.0.1"
    assert forwarded_for_value("10.0.0.1", "1.2.3.4", ()) == "10.0.0.1"


@given(peer=st.text(max_size=30), header=st.text(max_size=200))
def test_any_text_gives_an_answer(peer: str, header: str) -> None:
    client = client_address(peer, header, TRUSTED)
    assert client == peer or ":" in client or "." in client
