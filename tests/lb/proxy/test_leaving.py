"""A replica leaves the list while connections to it are being opened: each has a request that waits for it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest

from lb.endpoint import Endpoint
from lb.proxy.deadlines import Deadlines
from lb.proxy.memo import Memo
from lb.proxy.pool import ReplicaPool
from lb.settings import LimitSettings, TimeoutSettings
from tests.lb.proxy.waiting_request import Request


@pytest.fixture
async def pool() -> AsyncIterator[ReplicaPool]:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    yield ReplicaPool(
        Endpoint("r", "127.0.0.1", port), loop, Deadlines(loop), LimitSettings(), TimeoutSettings(),
        ssl.create_default_context, Memo(8), bytearray(1024), lambda transport, data, more: None,
    )  # fmt: skip
    server.close()


async def test_a_request_that_waits_for_its_connection_gets_it(pool: ReplicaPool) -> None:
    request = Request()
    opening = pool.connect(request)
    await asyncio.sleep(0)
    pool.retire()
    await opening
    (connection,) = request.made
    assert (connection.usable, request.failures) == (True, [])
    pool.put(connection)  # its request has ended
    assert pool.idle == 0
    assert connection.transport.is_closing()


async def test_nothing_waits_any_more_when_the_process_ends(pool: ReplicaPool) -> None:
    request = Request()
    opening = pool.connect(request)
    await asyncio.sleep(0)
    pool.close()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (request.made, request.failures) == ([], [])
