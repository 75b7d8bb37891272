"""Group E: replicas that fail, each in its own way."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import socket
import time

import pytest

from lb.effects import Outcome
from lb.endpoint import Endpoint
from lb.feeds.board import Board
from lb.feeds.http import ProbeClient
from lb.feeds.prober import Prober
from lb.runtime import RuntimeLoad
from tests.lb.catalogue.client import chat
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.upstream import (
    OK_BODY,
    STREAM_HEAD,
    Connection,
    Upstream,
    chunk,
    event,
    reply,
    stream,
    well_behaved,
)
from tests.lb.catalogue.wire import Request, Response
from tests.lb.catalogue.world import World, eventually

OUT = ("ejected", "unhealthy", "down", "out")


async def ask_many(world: World, count: int, request: bytes = b"") -> list[Response]:
    return [await world.ask(request or chat()) for _ in range(count)]


def is_out(world: World, upstream: Upstream) -> bool:
    return world.state_of(upstream) != "ready"


async def hang(connection: Connection, request: Request) -> None:
    await connection.gone(30)


def always(answer: bytes):  # type: ignore[no-untyped-def]
    async def script(connection: Connection, request: Request) -> None:
        await connection.send(answer)

    return script


async def test_e01_a_refused_connection_goes_to_the_next_replica_unseen(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    await world.upstreams[0].stop_listening()
    responses = await ask_many(world, 40)
    assert {response.status for response in responses} == {200}
    assert is_out(world, world.upstreams[0]), "not marked after 40 requests"
    assert any(record.attempts == 2 for record in world.recorder.records)


async def test_e01_with_one_replica_a_refused_connection_is_502_at_once(make_world: MakeWorld) -> None:
    world = await make_world()
    await world.upstreams[0].stop_listening()
    started = time.monotonic()
    response = await world.ask(chat())
    assert response.status in (502, 503)
    assert time.monotonic() - started < 1.0


class _Blackhole:
    """A port that takes no more connections: its backlog is full, and Linux drops the SYNs."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(self.listener.getsockname())
            self.fillers.append(filler)

    def close(self) -> None:
        for sock in [self.listener, *self.fillers]:
            sock.close()


async def test_e02_a_replica_that_does_not_answer_a_syn_costs_the_connect_timeout(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"connect_s": 0.3})
    hole = _Blackhole()
    try:
        host, port = hole.listener.getsockname()
        dark = Endpoint(id="dark", host=host, port=port, models=("m",), runtime="vllm")
        world.gateway.set_source("row", [world.endpoint(world.upstreams[0]), dark])
        world.ready("dark")
        slowest = 0.0
        for _ in range(8):
            started = time.monotonic()
            assert (await world.ask(chat())).status == 200
            slowest = max(slowest, time.monotonic() - started)
        assert 0.25 < slowest < 1.5, "the dark replica was never tried"
    finally:
        hole.close()


async def test_e03_a_reset_before_any_byte_is_tried_elsewhere(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)

    async def slam(connection: Connection) -> bool:
        connection.reset()
        return True

    world.upstreams[0].on_connect = slam
    responses = await ask_many(world, 20)
    assert {response.status for response in responses} == {200}
    assert world.upstreams[0].connections, "never tried"


async def test_e03_a_reset_after_the_request_was_read_is_tried_elsewhere_or_said(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)

    async def slam(connection: Connection, request: Request) -> None:
        connection.reset()

    world.upstreams[0].script = slam
    responses = await ask_many(world, 20)
    assert {response.status for response in responses} <= {200, 502}
    assert {response.status for response in responses[-10:]} == {200}


@pytest.mark.parametrize("streamed", [False, True])
async def test_e04_a_stale_pooled_connection_is_not_the_clients_problem(make_world: MakeWorld, streamed: bool) -> None:
    """The replica closes after each answer without saying so; requests cross the close at every possible moment."""
    world = await make_world()

    async def fickle(connection: Connection, request: Request) -> None:
        await well_behaved(connection, request)
        connection.close()

    world.upstreams[0].script = fickle
    client = await world.client()
    for number in range(100):
        await client.send(chat(stream=streamed))
        response = await client.response()
        assert response is not None
        assert response.status == 200, f"request {number}"
        assert response.complete
        await asyncio.sleep(0.0005 * (number % 4))


async def test_e04_a_reset_as_we_write_on_a_pooled_connection_is_not_either(make_world: MakeWorld) -> None:
    world = await make_world()

    async def once_each(connection: Connection, request: Request) -> None:
        if connection.requests == 1:
            await connection.send(reply())
        else:
            connection.reset()

    world.upstreams[0].script = once_each
    client = await world.client()
    for _ in range(50):
        await client.send(chat())
        response = await client.response()
        assert response is not None
        assert response.status == 200


async def test_e05_a_replica_that_never_answers_is_504_and_freed(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"first_byte_s": 0.3})
    world.upstreams[0].script = hang
    started = time.monotonic()
    response = await world.ask(chat())
    assert response.status == 504
    assert time.monotonic() - started < 1.5
    await eventually(lambda: world.upstreams[0].open_connections == 0)
    assert world.recorder.records[0].outcome is Outcome.FIRST_BYTE_TIMEOUT
    assert world.in_flight(world.upstreams[0]) == 0


async def test_e06_a_frozen_replica_is_out_within_three_probes(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, health={"interval_s": 0.2, "timeout_s": 0.2, "fall": 3})
    client = ProbeClient()
    await client.open()
    prober = Prober(world.gateway, client, Board(), world.settings.health, rng=random.Random(1))
    prober.start()
    await eventually(lambda: len(world.upstreams[0].requests) >= 2, what="probes")
    world.upstreams[0].script = hang  # SIGSTOP: the kernel accepts, nobody answers
    started = time.monotonic()
    await eventually(lambda: is_out(world, world.upstreams[0]), what="the frozen replica to be out")
    assert time.monotonic() - started < 3 * (0.2 + 0.2) + 1.0
    before = len(world.upstreams[0].bodies)
    assert {response.status for response in await ask_many(world, 10)} == {200}
    assert len(world.upstreams[0].bodies) == before
    await prober.stop()
    await client.close()


async def _first_token_then(connection: Connection, then) -> None:  # type: ignore[no-untyped-def]
    await connection.send(STREAM_HEAD + chunk(event("first")))
    await asyncio.sleep(0.05)
    result = then()
    if asyncio.iscoroutine(result):
        await result


def assert_cut_with_error(response: Response | None) -> None:
    """The stream began, an error event tells why, and its framing has no proper end."""
    assert response is not None
    assert response.status == 200
    assert b"first" in response.body
    assert b"[DONE]" not in response.body
    assert b'"error"' in response.body
    assert not response.complete, "a cut stream looks like a clean end"


async def test_e07_a_reset_in_mid_stream_is_an_error_event_and_no_clean_end(make_world: MakeWorld) -> None:
    world = await make_world()

    async def script(connection: Connection, request: Request) -> None:
        await _first_token_then(connection, connection.reset)

    world.upstreams[0].script = script
    assert_cut_with_error(await world.ask(chat(stream=True)))
    assert world.recorder.records[0].outcome is Outcome.RESET
    assert world.recorder.records[0].attempts == 1


async def test_e08_silence_in_mid_stream_ends_at_the_idle_timeout(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"idle_s": 0.4})

    async def script(connection: Connection, request: Request) -> None:
        await _first_token_then(connection, connection.gone)

    world.upstreams[0].script = script
    started = time.monotonic()
    assert_cut_with_error(await world.ask(chat(stream=True)))
    assert 0.3 < time.monotonic() - started < 1.5
    assert world.recorder.records[0].outcome is Outcome.IDLE_TIMEOUT
    await eventually(lambda: world.upstreams[0].open_connections == 0)


async def test_e09_a_slow_trickle_is_allowed(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"idle_s": 0.4})

    async def script(connection: Connection, request: Request) -> None:
        await connection.send(STREAM_HEAD)
        for _ in range(6):
            await asyncio.sleep(0.2)
            await connection.send(chunk(event("first")))
        await connection.send(stream(0)[len(STREAM_HEAD) :])

    world.upstreams[0].script = script
    response = await world.ask(chat(stream=True))
    assert response.complete
    assert response.body.count(b"first") == 6
    assert b"[DONE]" in response.body


async def test_e10_a_chunked_stream_that_stops_early_is_cut(make_world: MakeWorld) -> None:
    world = await make_world()

    async def script(connection: Connection, request: Request) -> None:
        await _first_token_then(connection, connection.close)

    world.upstreams[0].script = script
    assert_cut_with_error(await world.ask(chat(stream=True)))


@pytest.mark.parametrize("ending", ["no end at all", "done without a last chunk", "abort"])
async def test_e10_a_stream_whose_framing_ends_but_whose_answer_does_not_is_cut(
    make_world: MakeWorld, ending: str
) -> None:
    world = await make_world()
    last = {
        "no end at all": b"",
        "done without a last chunk": chunk(b"data: [DONE]\n\n"),
        "abort": chunk(event(finish="abort")) + chunk(b"data: [DONE]\n\n"),
    }[ending]

    async def script(connection: Connection, request: Request) -> None:
        await _first_token_then(connection, lambda: connection.send(last + b"0\r\n\r\n"))

    world.upstreams[0].script = script
    assert_cut_with_error(await world.ask(chat(stream=True)))


async def test_e11_a_body_shorter_than_its_length_is_cut(make_world: MakeWorld) -> None:
    world = await make_world()

    async def script(connection: Connection, request: Request) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\nhello")
        await asyncio.sleep(0.05)
        connection.close()

    world.upstreams[0].script = script
    client = await world.client()
    await client.send(chat())
    response = await client.response()
    assert response is not None
    assert not response.complete
    await client.ended()


async def test_e12_a_body_longer_than_its_length_ends_at_it_and_the_connection_is_destroyed(
    make_world: MakeWorld,
) -> None:
    world = await make_world()

    async def script(connection: Connection, request: Request) -> None:
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello, world"
        )

    world.upstreams[0].script = script
    for _ in range(3):
        response = await world.ask(chat())
        assert response.status == 200
        assert response.body == b"hello"
    await eventually(lambda: world.upstreams[0].open_connections == 0)
    assert len(world.upstreams[0].connections) == 3


GARBAGE = {
    "e13 garbage": b"\x00\x01\x02 not http at all\r\n\r\n",
    "e13 other protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "e13 html": b"<html>hello</html>\r\n\r\n",
    "e13 http/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d",
    "e13 status 0": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "e13 status 20": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "e13 status 2000": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "e13 version": b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
    "e13 unasked switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "e14 huge status line": b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "e14 without end": b"HTTP/1.1 200 " + b"x" * 1_000_000,
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_e13_e14_what_is_not_http_is_502(make_world: MakeWorld, kind: str) -> None:
    world = await make_world(timeouts={"first_byte_s": 1.0})

    async def script(connection: Connection, request: Request) -> None:
        await connection.send(GARBAGE[kind])
        await connection.gone()

    world.upstreams[0].script = script
    response = await world.ask(chat())
    assert response.status == 502
    await eventually(lambda: world.upstreams[0].open_connections == 0)


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 200 OK\rX-Evil: 1\r\n", b"HTTP/1.1 200 O\x00K\r\n", b"HTTP/1.1 200 OK\nX-Evil: 1\r\n", b"HTTP/1.1 200 \x1b[31m\r\n"]
)  # fmt: skip
async def test_e15_controls_in_the_reason_are_not_passed_on(make_world: MakeWorld, line: bytes) -> None:
    world = await make_world()

    async def script(connection: Connection, request: Request) -> None:
        await connection.send(line + b"Content-Length: 2\r\n\r\nok")
        await connection.gone(0.3)

    world.upstreams[0].script = script
    response = await world.ask(chat())
    assert response.status in (200, 502)
    assert b"\x00" not in response.raw_head
    assert b"\x1b" not in response.raw_head
    assert response.status == 502 or response.get("x-evil") is None or b"\n" in line.rstrip(b"\r\n")
    assert b"\r" not in response.raw_head.replace(b"\r\n", b"")


ERROR_500 = reply(b'{"error": "CUDA error: an illegal memory access was encountered"}', "500 Internal Server Error")


async def test_e16_a_burst_of_500_from_one_replica_ejects_it(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    world.upstreams[0].script = always(ERROR_500)
    for _ in range(60):
        await world.ask(chat())
        if is_out(world, world.upstreams[0]):
            break
    assert is_out(world, world.upstreams[0])
    seen = len(world.upstreams[0].requests)
    assert seen <= 12
    assert {response.status for response in await ask_many(world, 10)} == {200}
    assert len(world.upstreams[0].requests) == seen


async def test_e16_at_most_half_of_a_pool_is_ejected(make_world: MakeWorld) -> None:
    world = await make_world(replicas=4)
    for upstream in world.upstreams[:3]:
        upstream.script = always(ERROR_500)
    for _ in range(100):
        await world.ask(chat())
        out = sum(is_out(world, upstream) for upstream in world.upstreams)
        assert out <= 2
    assert out == 2


async def test_e17_when_all_say_500_it_is_passed_on_and_not_multiplied(make_world: MakeWorld) -> None:
    world = await make_world(replicas=3)
    for upstream in world.upstreams:
        upstream.script = always(ERROR_500)
    responses = await ask_many(world, 40)
    passed = [response for response in responses if response.status == 500]
    assert len(passed) >= 20
    assert b"illegal memory access" in passed[0].body
    assert sum(len(upstream.requests) for upstream in world.upstreams) <= 40 * 2


BUSY = reply(
    b'{"error": "slow down"}', "429 Too Many Requests", b"Retry-After: 7\r\nContent-Type: application/json\r\n"
)


async def test_e18_a_429_is_tried_on_a_less_loaded_replica(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    world.upstreams[0].script = always(BUSY)
    assert {response.status for response in await ask_many(world, 20)} == {200}
    assert 1 <= len(world.upstreams[0].requests) <= 6, "it asked for a rest of 7 s"
    assert not is_out(world, world.upstreams[0])


async def test_e18_a_429_of_all_is_passed_on_with_its_header(make_world: MakeWorld) -> None:
    world = await make_world(admission={"queue": False})
    world.upstreams[0].script = always(BUSY)
    response = await world.ask(chat())
    assert response.status == 429
    assert response.get("retry-after") == "7"
    assert response.body == b'{"error": "slow down"}'


async def test_e18_retries_stay_within_the_budget(make_world: MakeWorld) -> None:
    world = await make_world(
        replicas=2, admission={"queue": False}, retries={"budget_ratio": 0.2, "budget_min_tokens": 0}
    )
    for upstream in world.upstreams:
        upstream.script = always(reply(b'{"error": "slow down"}', "429 Too Many Requests", b"Retry-After: 0\r\n"))
    for _ in range(50):
        assert (await world.ask(chat())).status in (429, 503)
    asked = sum(len(upstream.requests) for upstream in world.upstreams)
    assert asked <= 50 * 1.2 + 1


async def test_e19_a_503_while_loading_is_not_ready_and_not_failed(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    loading = reply(
        b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', "503 Service Unavailable"
    )
    world.upstreams[0].script = always(loading)
    assert {response.status for response in await ask_many(world, 12)} == {200}
    assert len(world.upstreams[0].requests) == 1
    assert world.state_of(world.upstreams[0]) in ("loading", "joining")


@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "400 Bad Request", "422 Unprocessable"]
)
async def test_e20_client_errors_are_passed_on_and_never_held_against_a_replica(
    make_world: MakeWorld, status: str
) -> None:
    world = await make_world(replicas=2)
    for upstream in world.upstreams:
        upstream.script = always(reply(b'{"error": "no"}', status))
    for response in await ask_many(world, 20):
        assert response.status == int(status[:3])
        assert response.body == b'{"error": "no"}'
    assert sum(len(upstream.requests) for upstream in world.upstreams) == 20
    assert not any(is_out(world, upstream) for upstream in world.upstreams)
    assert {record.outcome for record in world.recorder.records} == {Outcome.CLIENT_ERROR}


async def test_e21_html_with_200_is_passed_on(make_world: MakeWorld) -> None:
    world = await make_world()
    page = b"<html><body>captive portal</body></html>"
    world.upstreams[0].script = always(reply(page, headers=b"Content-Type: text/html\r\n"))
    response = await world.ask(chat())
    assert (response.status, response.body) == (200, page)
    assert response.get("content-type") == "text/html"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_e22_redirects_are_passed_on_and_never_followed(make_world: MakeWorld, status: str) -> None:
    world = await make_world()
    trap = await Upstream().start()
    location = f"Location: {trap.url}/latest/meta-data\r\n".encode()
    world.upstreams[0].script = always(reply(b"", status, location))
    response = await world.ask(chat())
    assert response.status == int(status[:3])
    assert response.get("location") == f"{trap.url}/latest/meta-data"
    assert not trap.connections
    await trap.close()


async def test_e23_compressed_answers_are_passed_on_untouched(make_world: MakeWorld) -> None:
    world = await make_world()
    packed = gzip.compress(OK_BODY)
    world.upstreams[0].script = always(
        reply(packed, headers=b"Content-Encoding: gzip\r\nContent-Type: application/json\r\n")
    )
    response = await world.ask(chat(headers="Accept-Encoding: gzip\r\n"))
    assert response.body == packed
    assert response.get("content-encoding") == "gzip"
    assert world.upstreams[0].requests[0].get("accept-encoding") == "gzip"


async def test_e24_a_replica_whose_health_page_lies_is_ejected_by_its_answers(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    dying = reply(b'{"error": {"message": "cannot schedule new futures after shutdown"}}', "500 Internal Server Error")
    world.upstreams[0].script = always(dying)
    statuses = []
    for _ in range(20):
        world.ready(world.upstreams[0].url)
        statuses.append((await world.ask(chat())).status)
    assert statuses.count(200) >= 17
    assert statuses[-10:] == [200] * 10
    assert len(world.upstreams[0].requests) <= 8


async def test_e25_our_own_count_wins_over_a_replica_that_says_it_is_idle(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    idle = RuntimeLoad(running=0, waiting=0, kv_usage_ratio=0.0)
    for upstream in world.upstreams:
        upstream.script = hang
    clients = []
    for _ in range(20):
        for upstream in world.upstreams:
            world.gateway.observe_load(upstream.url, idle)
        client = await world.client()
        await client.send(chat())
        clients.append(client)
        await eventually(lambda: sum(len(u.requests) for u in world.upstreams) == len(clients))
    counts = sorted(len(upstream.requests) for upstream in world.upstreams)
    assert counts[0] >= 8, f"herded: {counts}"
    for client in clients:
        client.close()


EMPTY = {
    "no event": STREAM_HEAD + b"0\r\n\r\n",
    "only done": STREAM_HEAD + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
    "stop without content": STREAM_HEAD + chunk(event(finish="stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
}


@pytest.mark.parametrize("kind", EMPTY)
async def test_e26_a_replica_that_answers_nothing_fast_does_not_draw_the_traffic(
    make_world: MakeWorld, kind: str
) -> None:
    world = await make_world(replicas=2)
    world.upstreams[0].script = always(EMPTY[kind])

    async def steady(connection: Connection, request: Request) -> None:
        await asyncio.sleep(0.01)
        await connection.send(stream(5))

    world.upstreams[1].script = steady
    for _ in range(60):
        with contextlib.suppress(AssertionError):
            await world.ask(chat(stream=True))
    assert len(world.upstreams[0].requests) <= 20, "a black hole drew the traffic"
