"""Group A, first half: clients that are slow to ask, and clients that leave."""

from __future__ import annotations

import asyncio
import time

import pytest

from lb.effects import Outcome
from lb.errors import Reason
from tests.lb.catalogue.client import chat
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    SLACK_S,
    freed_after,
    silent,
)
from tests.lb.catalogue.upstream import (
    STREAM_HEAD,
    Connection,
    chunk,
    event,
    reply,
)
from tests.lb.catalogue.wire import Request
from tests.lb.catalogue.world import eventually

FREED_S = 0.1
"""The row's own bound on how long a replica may work for nobody."""


async def test_a01_a_client_that_sends_nothing_is_closed_at_the_head_deadline(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"head_s": 0.3})
    client = await world.client()
    assert 0.2 < await client.ended() < 0.3 + SLACK_S
    assert not world.upstreams[0].requests


async def test_a02_half_a_request_line_and_silence_is_408(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"head_s": 0.3})
    client = await world.client()
    await client.send(b"POST /v1/chat/compl")
    started = time.monotonic()
    response = await client.response()
    assert response is not None
    assert response.status == 408
    assert response.close
    await client.ended()
    assert 0.2 < time.monotonic() - started < 0.3 + 1.0 + SLACK_S
    assert world.recorder.reasons == [Reason.REQUEST_TIMEOUT]


async def test_a03_a_trickle_of_header_bytes_does_not_extend_the_deadline(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"head_s": 0.4})
    client = await world.client()
    started = time.monotonic()

    async def trickle() -> None:
        for byte in b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)

    slow = asyncio.create_task(trickle())
    response = await client.response()
    assert response is not None
    assert response.status == 408
    assert 0.3 < time.monotonic() - started < 0.4 + SLACK_S
    slow.cancel()
    assert not world.upstreams[0].requests


async def test_a04_half_a_body_and_silence_is_408_and_no_replica_hears_of_it(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"body_s": 0.3})
    client = await world.client()
    await client.send(chat()[:-10])
    response = await client.response()
    assert response is not None
    assert response.status == 408
    assert response.close
    assert not world.upstreams[0].requests
    assert world.recorder.reasons == [Reason.REQUEST_TIMEOUT]


async def test_a04_half_a_large_body_frees_its_replica(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"body_s": 0.3}, limits={"buffer_bytes": 4096})
    client = await world.client()
    await client.send(chat(text="x" * 100_000)[:50_000])
    await eventually(lambda: world.upstreams[0].connections, what="the body to be streamed")
    response = await client.response()
    assert response is not None
    assert response.status == 408
    await eventually(lambda: world.upstreams[0].open_connections == 0)


async def test_a05_a_body_below_the_least_rate_is_cut(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"body_s": 0.3, "body_rate_bytes_s": 1024})
    client = await world.client()
    request = chat(text="x" * 1000)
    head, _, body = request.partition(b"\r\n\r\n")
    await client.send(head + b"\r\n\r\n")

    async def trickle() -> None:
        for byte in body:
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)  # 50 B/s

    slow = asyncio.create_task(trickle())
    response = await client.response()
    slow.cancel()
    assert response is not None
    assert response.status == 408


async def test_a05_a_slow_body_above_the_least_rate_passes(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"body_s": 0.25, "body_rate_bytes_s": 1024})
    client = await world.client()
    request = chat(text="x" * 8000)
    for start in range(0, len(request), 400):
        await client.send(request[start : start + 400])
        await asyncio.sleep(0.05)  # 8 kB/s for a second, four windows
    response = await client.response()
    assert response is not None
    assert response.status == 200


async def _idle_stream(connection: Connection, request: Request) -> None:
    await connection.send(STREAM_HEAD + chunk(event()))
    await connection.gone()


async def _busy_stream(connection: Connection, request: Request) -> None:
    await connection.send(STREAM_HEAD)
    while True:
        await connection.send(chunk(event("x" * 100)))
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a06_a09_a_client_that_leaves_before_the_headers_frees_the_replica(
    make_world: MakeWorld, how: str, streamed: bool
) -> None:
    world = await make_world()
    world.upstreams[0].script = silent
    client = await world.client()
    await client.send(chat(stream=streamed))
    await eventually(lambda: world.upstreams[0].requests)
    getattr(client, how)()
    assert await freed_after(world) < FREED_S
    await eventually(lambda: world.recorder.records)
    [record] = world.recorder.records
    assert (record.outcome, record.status) == (Outcome.CLIENT_CLOSED, 499)
    assert world.in_flight(world.upstreams[0]) == 0


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("script", [_idle_stream, _busy_stream])
async def test_a07_a08_a09_a_client_that_leaves_a_stream_frees_the_replica(
    make_world: MakeWorld, how: str, script: object
) -> None:
    world = await make_world()
    world.upstreams[0].script = script  # type: ignore[assignment]
    client = await world.client()
    await client.send(chat(stream=True))
    assert b"200 OK" in await client.receive()
    getattr(client, how)()
    assert await freed_after(world) < FREED_S
    await eventually(lambda: world.recorder.records)
    [record] = world.recorder.records
    assert (record.outcome, record.status) == (Outcome.CLIENT_CLOSED, 200)


async def test_a06_a_client_that_leaves_the_queue_is_forgotten(make_world: MakeWorld) -> None:
    world = await make_world(admission={"default_max_in_flight": 1, "queue_depth": 0})
    world.upstreams[0].script = silent
    first, second = await world.client(), await world.client()
    await first.send(chat())
    await eventually(lambda: world.upstreams[0].requests)
    await second.send(chat())
    await eventually(lambda: world.view().queued == 1)
    second.close()
    await eventually(lambda: world.view().queued == 0)
    first.close()
    await eventually(lambda: len(world.recorder.records) == 2)
    assert len(world.upstreams[0].requests) == 1


async def test_a10_a_half_close_means_gone_by_default(make_world: MakeWorld) -> None:
    world = await make_world()
    world.upstreams[0].script = silent
    client = await world.client()
    await client.send(chat())
    await eventually(lambda: world.upstreams[0].requests)
    client.half_close()
    assert await freed_after(world) < FREED_S


async def test_a10_a_half_close_waits_where_the_policy_says_so(make_world: MakeWorld) -> None:
    world = await make_world(forwarding={"half_close": "wait"})

    async def late(connection: Connection, request: Request) -> None:
        await asyncio.sleep(0.3)
        await connection.send(reply())

    world.upstreams[0].script = late
    client = await world.client()
    await client.send(chat())
    client.half_close()
    response = await client.response()
    assert response is not None
    assert response.status == 200
