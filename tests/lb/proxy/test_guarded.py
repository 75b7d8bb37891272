"""A replica added by name is connected to only where a replica can be, whatever its name means by now (L10)."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lb.effects import Outcome
from lb.endpoint import Endpoint
from lb.proxy.deadlines import Deadlines
from lb.proxy.memo import Memo
from lb.proxy.pool import ReplicaPool
from lb.settings import LimitSettings, TimeoutSettings
from tests.lb.proxy.waiting_request import Request

NAME = "gpu-7.example"


class Names:
    """A name server under somebody else's control."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses = ["127.0.0.1"]
        self.asked = 0
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *rest: Any, **named: Any) -> list[Any]:
        assert host == NAME
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where a server listens on loopback."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def pool(endpoint: Endpoint) -> ReplicaPool:
    loop = asyncio.get_running_loop()
    return ReplicaPool(
        endpoint, loop, Deadlines(loop), LimitSettings(), TimeoutSettings(), ssl.create_default_context, Memo(8),
        bytearray(1024), lambda transport, data, more: None,
    )  # fmt: skip


async def test_l10_each_connection_goes_where_the_name_was_checked_to_lead(names: Names, port: int) -> None:
    replica = pool(Endpoint("r", NAME, port, guarded=True))
    request = Request()
    for asked in (1, 2):
        await replica.connect(request)
        assert names.asked == asked
    assert [one.transport.get_extra_info("peername") for one in request.made] == [("127.0.0.1", port)] * 2
    for one in request.made:
        one.abort()


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["127.0.0.1", "169.254.169.254"], ["0.0.0.0"]])
async def test_l10_a_name_that_comes_to_mean_a_metadata_service_is_not_connected_to(
    names: Names, port: int, addresses: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    names.addresses = addresses
    request = Request()
    with caplog.at_level(logging.WARNING):
        await pool(Endpoint("r", NAME, port, guarded=True)).connect(request)
    assert (request.made, request.failures) == ([], [Outcome.CONNECT_FAILED])
    assert addresses[-1] in caplog.text
