"""Group A: clients that misbehave or leave."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from pathlib import Path

import pytest

from lb.effects import Outcome
from lb.errors import Reason
from tests.lb.catalogue.client import chat, get, post
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.upstream import STREAM_HEAD, Connection, chunk, event, reply, stream
from tests.lb.catalogue.wire import Request, read_response
from tests.lb.catalogue.world import World, eventually

FREED_S = 0.1
"""The row's own bound on how long a replica may work for nobody."""
SLACK_S = 0.4
"""A busy machine may wake this test late; deadlines must not be early, and not later than this."""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


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


async def _silent(connection: Connection, request: Request) -> None:
    await connection.gone()


async def _idle_stream(connection: Connection, request: Request) -> None:
    await connection.send(STREAM_HEAD + chunk(event()))
    await connection.gone()


async def _busy_stream(connection: Connection, request: Request) -> None:
    await connection.send(STREAM_HEAD)
    while True:
        await connection.send(chunk(event("x" * 100)))
        await asyncio.sleep(0.002)


async def _freed_after(world: World) -> float:
    """How long until the replica's connection is closed, from now."""
    started = time.monotonic()
    upstream = world.upstreams[0]
    await eventually(lambda: upstream.open_connections == 0, what="the replica to be freed")
    return time.monotonic() - started


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a06_a09_a_client_that_leaves_before_the_headers_frees_the_replica(
    make_world: MakeWorld, how: str, streamed: bool
) -> None:
    world = await make_world()
    world.upstreams[0].script = _silent
    client = await world.client()
    await client.send(chat(stream=streamed))
    await eventually(lambda: world.upstreams[0].requests)
    getattr(client, how)()
    assert await _freed_after(world) < FREED_S
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
    assert await _freed_after(world) < FREED_S
    await eventually(lambda: world.recorder.records)
    [record] = world.recorder.records
    assert (record.outcome, record.status) == (Outcome.CLIENT_CLOSED, 200)


async def test_a06_a_client_that_leaves_the_queue_is_forgotten(make_world: MakeWorld) -> None:
    world = await make_world(admission={"default_max_in_flight": 1, "queue_depth": 0})
    world.upstreams[0].script = _silent
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
    world.upstreams[0].script = _silent
    client = await world.client()
    await client.send(chat())
    await eventually(lambda: world.upstreams[0].requests)
    client.half_close()
    assert await _freed_after(world) < FREED_S


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
    world.upstreams[0].script = _silent
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
