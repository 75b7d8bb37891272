"""Group A, second half: clients that do not read, pipeline, idle, or speak odd HTTP."""

from __future__ import annotations

import asyncio
import json

import pytest

from lb.effects import Outcome
from tests.lb.catalogue.client import chat, get, post
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    SLACK_S,
    resident_bytes,
    silent,
)
from tests.lb.catalogue.upstream import (
    STREAM_HEAD,
    Connection,
    chunk,
    event,
    reply,
    stream,
)
from tests.lb.catalogue.wire import Request, read_response
from tests.lb.catalogue.world import eventually


async def test_a11_a_client_that_stops_reading_pauses_its_replica_and_is_cut(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"write_stall_s": 0.6})
    sent = 0

    async def flood(connection: Connection, request: Request) -> None:
        nonlocal sent
        await connection.send(STREAM_HEAD)
        part = chunk(event("x" * 16_000))
        while sent < 30_000_000:
            await connection.send(part)
            sent += len(part)

    world.upstreams[0].script = flood
    client = await world.client(receive_buffer=4096)
    before = resident_bytes()
    await client.send(chat(stream=True))
    await asyncio.sleep(0.3)
    stalled_at = sent
    grown = resident_bytes() - before
    await asyncio.sleep(0.2)
    assert sent == stalled_at, "the replica is not paused"
    assert stalled_at < 12_000_000  # what the kernel's socket buffers of both hops hold
    assert grown < 4_000_000
    await eventually(lambda: world.recorder.records, 3.0, "the stalled client to be cut")
    assert world.recorder.records[0].outcome is Outcome.WRITE_STALLED
    await eventually(lambda: world.upstreams[0].open_connections == 0)


async def test_a11_a_stalled_reader_holds_at_most_256_kib(make_world: MakeWorld) -> None:
    """Thirty stalled readers, measured as what the transports hold, which the kernel's buffers do not blur."""
    world = await make_world(timeouts={"write_stall_s": 30.0})

    async def flood(connection: Connection, request: Request) -> None:
        await connection.send(STREAM_HEAD)
        while True:
            await connection.send(chunk(event("x" * 30_000)))

    world.upstreams[0].script = flood
    for _ in range(30):
        client = await world.client(receive_buffer=4096)
        await client.send(chat(stream=True))
    await asyncio.sleep(0.5)
    held = [connection.transport.get_write_buffer_size() for connection in world.server._context.connections]
    assert len(held) >= 30
    assert max(held) <= 256 * 1024


async def test_a12_a_slow_reader_gets_everything_and_slows_nobody(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"write_stall_s": 1.0})
    events = 400

    async def long(connection: Connection, request: Request) -> None:
        await connection.send(
            STREAM_HEAD + b"".join(chunk(event("x" * 2000)) for _ in range(events)) + stream(0)[len(STREAM_HEAD) :]
        )

    world.upstreams[0].script = long
    client = await world.client(receive_buffer=4096)
    await client.send(chat(stream=True))
    received = b""
    while b"[DONE]" not in received:
        data = await client.receive(8192)
        assert data
        received += data
        if len(received) < 200_000:
            await asyncio.sleep(0.01)
    assert received.count(b'"content"') == events
    assert world.recorder.records == [] or world.recorder.records[0].outcome is Outcome.OK


async def test_a13_a_thousand_connects_and_resets_leave_nothing(make_world: MakeWorld) -> None:
    world = await make_world()
    for _ in range(10):
        clients = await asyncio.gather(*(world.client() for _ in range(100)))
        for client in clients:
            client.reset()
    await eventually(lambda: world.server.connections <= 1)
    assert not world.recorder.records


async def test_a14_pipelined_requests_are_answered_in_order(make_world: MakeWorld) -> None:
    world = await make_world()

    async def echo(connection: Connection, request: Request) -> None:
        number = json.loads(request.body)["messages"][0]["content"]
        await asyncio.sleep(0.01 if int(number) % 3 == 0 else 0)
        await connection.send(reply(number.encode()))

    world.upstreams[0].script = echo
    client = await world.client()
    await client.send(b"".join(chat(text=str(number)) for number in range(100)))
    for number in range(100):
        response = await client.response()
        assert response is not None
        assert response.body == str(number).encode()


async def test_a14_what_is_pipelined_ahead_is_bounded(make_world: MakeWorld) -> None:
    world = await make_world()
    world.upstreams[0].script = silent
    client = await world.client()
    flood = asyncio.create_task(client.send(chat(text="x" * 1000) * 40_000))
    await eventually(lambda: world.upstreams[0].requests)
    await asyncio.sleep(0.3)
    assert not flood.done(), "40 MB of pipelined requests were read while one is in progress"
    [busy] = [c for c in world.server._context.connections if len(c._buffer) > 1000]
    assert len(busy._buffer) <= 512 * 1024
    flood.cancel()
    await asyncio.gather(flood, return_exceptions=True)


async def test_a15_an_idle_connection_is_closed_but_not_under_a_request(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"keep_alive_s": 0.4, "head_s": 2.0})
    idle, late = await world.client(), await world.client()
    for client in (idle, late):
        await client.send(chat())
        response = await client.response()
        assert response is not None
        assert response.status == 200
    await asyncio.sleep(0.2)
    await late.send(chat()[:30])
    assert await idle.ended() < 0.4 + SLACK_S
    await asyncio.sleep(0.3)
    await late.send(chat()[30:])
    response = await late.response()
    assert response is not None
    assert response.status == 200


async def test_a15_no_request_is_lost_to_the_closing_of_an_idle_connection(make_world: MakeWorld) -> None:
    """A request that crosses the close is at worst not answered; it never gets half an answer."""
    world = await make_world(timeouts={"keep_alive_s": 0.2})
    answered = 0
    for delay in [0.15, 0.18, 0.19, 0.2, 0.21, 0.22, 0.25, 0.3]:
        client = await world.client()
        await client.send(chat())
        await client.response()
        await asyncio.sleep(delay)
        await client.send(chat())
        response = await client.response()
        answered += response is not None and response.status == 200
    assert answered >= 1
    assert len(world.recorder.records) == 8 + answered


async def test_a16_ten_thousand_requests_on_one_connection_keep_memory_flat(make_world: MakeWorld) -> None:
    world = await make_world()
    client = await world.client()
    request = get("/v1/models")

    async def rounds(count: int) -> None:
        for _ in range(count // 10):
            await client.send(request * 10)
            for _ in range(10):
                response = await client.response()
                assert response is not None
                assert response.status == 200

    await rounds(1000)
    before = resident_bytes()
    await rounds(9000)
    assert resident_bytes() - before < 4_000_000


async def test_a16_many_chats_on_one_connection_use_one_upstream_connection(make_world: MakeWorld) -> None:
    world = await make_world()
    client = await world.client()
    for _ in range(300):
        await client.send(chat())
        response = await client.response()
        assert response is not None
        assert response.status == 200
    assert len(world.upstreams[0].requests) == 300
    assert len(world.upstreams[0].connections) == 1


async def test_a17_expect_100_continue_gets_100_and_then_the_answer(make_world: MakeWorld) -> None:
    world = await make_world()
    client = await world.client()
    request = chat(headers="Expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    await client.send(head + b"\r\n\r\n")
    assert await client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(body)
    response = await client.response()
    assert response is not None
    assert response.status == 200
    assert world.upstreams[0].requests[0].get("expect") is None


async def test_a17_expect_with_too_large_a_body_gets_the_final_status_at_once(make_world: MakeWorld) -> None:
    world = await make_world(limits={"body_bytes": 100_000})
    client = await world.client()
    head = post(b"", headers="Expect: 100-continue\r\n").replace(b"Content-Length: 0", b"Content-Length: 100001")
    await client.send(head)
    response = await client.response()
    assert response is not None
    assert response.status == 413


async def test_a17_an_unknown_expectation_is_417(make_world: MakeWorld) -> None:
    world = await make_world()
    response = await world.ask(chat(headers="Expect: 200-maybe\r\n"))
    assert response.status == 417
    assert not world.upstreams[0].requests


@pytest.mark.parametrize("streamed", [False, True])
async def test_a18_an_http_1_0_client_gets_no_chunks(make_world: MakeWorld, streamed: bool) -> None:
    world = await make_world()
    client = await world.client()
    await client.send(chat(stream=streamed, version="1.0"))
    response = await read_response(client.source)
    assert response is not None
    assert response.status == 200
    assert not response.chunked
    assert (b"[DONE]" in response.body) == streamed
    await client.ended()


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/v1/chat/completions", "/", "/nowhere"])
async def test_a19_head_has_no_body_and_does_not_hang(make_world: MakeWorld, path: str) -> None:
    world = await make_world()
    client = await world.client()
    await client.send(get(path, method="HEAD"))
    response = await client.response(head_only=True)
    assert response is not None
    assert response.status < 500
    if not response.close:
        await client.send(get("/v1/models"))
        after = await client.response()
        assert after is not None
        assert after.status == 200, "a body after the HEAD's reply"


@pytest.mark.parametrize("target", ["*", "/v1/chat/completions", "/v1/models"])
async def test_a19_options_is_answered(make_world: MakeWorld, target: str) -> None:
    world = await make_world()
    response = await world.ask(get(target, method="OPTIONS"))
    assert response.status < 500


async def test_a20_bytes_after_a_last_request_are_ignored(make_world: MakeWorld) -> None:
    world = await make_world()
    client = await world.client()
    await client.send(chat(headers="Connection: close\r\n") + b"GARBAGE \x00\xff" * 100)
    response = await client.response()
    assert response is not None
    assert response.status == 200
    assert response.close
    await client.ended()
    assert len(world.upstreams[0].requests) == 1
