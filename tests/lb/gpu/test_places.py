"""Which machine a name means."""

from __future__ import annotations

import asyncio
import socket

import pytest

from lb.feeds.places import Places, has_address


def own_address() -> str | None:
    """An address of this machine other than loopback; None: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def test_loopback_is_this_machine_without_asking() -> None:
    places = Places(lambda address: pytest.fail(f"asked for {address}"))
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1"):
        assert places.is_own(host)


def test_the_kernel_knows_our_addresses_and_no_others() -> None:
    assert not has_address("198.51.100.7"), "TEST-NET-2 is nobody's"
    assert not has_address("2001:db8::7")
    own = own_address()
    if own is not None:
        assert has_address(own)
        assert Places().is_own(own)


def test_addresses_are_compared_in_one_form() -> None:
    places = Places(lambda address: False)
    assert places.addresses("::ffff:10.0.0.1") == places.addresses("10.0.0.1") == {"10.0.0.1"}
    assert places.addresses("FD00::0001") == {"fd00::1"}
    assert places.addresses("unknown.test") == frozenset()
    assert not places.is_own("unknown.test")


async def test_names_are_looked_up_and_keep_their_last_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    answers = {"gpu-1.test": "10.0.0.1", "me.test": "10.0.0.5"}

    async def look_up(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if name not in answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[name], 0))]

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    places = Places(lambda address: address == "10.0.0.5")
    assert await places.learn(["gpu-1.test", "me.test", "10.0.0.9", "gone.test"])
    assert places.addresses("gpu-1.test") == {"10.0.0.1"}
    assert places.is_own("me.test")
    assert not await places.learn(["gpu-1.test", "me.test", "gone.test"])
    answers.clear()
    assert not await places.learn(["gpu-1.test", "me.test", "gone.test"]), "a dead name server changes nothing"
    assert places.addresses("gpu-1.test") == {"10.0.0.1"}
    await places.learn(["me.test"])
    assert places.addresses("gpu-1.test") == frozenset(), "a name that nobody uses is forgotten"
