"""Group E, replies: cut, garbled, odd, or passed on as they are."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable

import pytest

from lb.effects import Outcome
from tests.lb.catalogue.client import chat
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    always,
    assert_cut_with_error,
)
from tests.lb.catalogue.upstream import (
    OK_BODY,
    STREAM_HEAD,
    Connection,
    Upstream,
    chunk,
    event,
    reply,
    stream,
)
from tests.lb.catalogue.wire import Request
from tests.lb.catalogue.world import eventually


async def _first_token_then(connection: Connection, then: Callable[[], object]) -> None:
    await connection.send(STREAM_HEAD + chunk(event("first")))
    await asyncio.sleep(0.05)
    result = then()
    if asyncio.iscoroutine(result):
        await result


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


REASONS = [
    b"HTTP/1.1 200 OK\rX-Evil: 1\r\n", b"HTTP/1.1 200 O\x00K\r\n", b"HTTP/1.1 200 OK\nX-Evil: 1\r\n",
    b"HTTP/1.1 200 \x1b[31m\r\n",
]  # fmt: skip


@pytest.mark.parametrize("line", REASONS)
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
