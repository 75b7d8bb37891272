"""Group C, replies and connections that two parsers would read differently."""

from __future__ import annotations

import asyncio

import pytest

from tests.lb.catalogue.client import chat
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    CHUNKED,
    HEAD,
)
from tests.lb.catalogue.upstream import (
    Connection,
    reply,
    stream,
)
from tests.lb.catalogue.wire import Request
from tests.lb.catalogue.world import eventually


async def test_c10_an_early_answer_ends_the_upload_and_the_connection(make_world: MakeWorld) -> None:
    world = await make_world(limits={"buffer_bytes": 4096})

    async def early(connection: Connection) -> bool:
        await connection.source.until(b"\r\n\r\n")
        await connection.send(reply(b'{"error": "too large"}', "413 Content Too Large"))
        await connection.gone(5)
        return True

    world.upstreams[0].on_connect = early
    client = await world.client()
    uploading = asyncio.create_task(client.send(chat(text="x" * 10_000_000)))
    response = await client.response()
    assert response is not None
    assert response.status == 413
    assert response.close
    await client.ended()
    uploading.cancel()
    await asyncio.gather(uploading, return_exceptions=True)
    await eventually(lambda: world.upstreams[0].open_connections == 0)
    assert (await world.ask(chat())).status in (200, 413)
    assert len(world.upstreams[0].connections) == 2


@pytest.mark.parametrize("unasked", [reply(b"poison"), b"HTTP/1.1 200 OK\r\n", b"\r\n", b"x"])
async def test_c11_bytes_on_an_idle_connection_are_nobodys_answer(make_world: MakeWorld, unasked: bytes) -> None:
    world = await make_world()

    async def talkative(connection: Connection, request: Request) -> None:
        await connection.send(reply())
        if len(world.upstreams[0].requests) == 1:
            await asyncio.sleep(0.05)
            await connection.send(unasked)

    world.upstreams[0].script = talkative
    assert (await world.ask(chat())).status == 200
    await asyncio.sleep(0.15)
    for _ in range(3):
        response = await world.ask(chat())
        assert response.status == 200
        assert b"poison" not in response.body
    assert world.upstreams[0].connections[0].closed


async def test_c11_bytes_right_behind_an_answer_are_nobodys_answer(make_world: MakeWorld) -> None:
    world = await make_world()

    async def two(connection: Connection, request: Request) -> None:
        await connection.send(reply() + reply(b"poison"))

    world.upstreams[0].script = two
    client = await world.client()
    for _ in range(4):
        await client.send(chat())
        response = await client.response()
        assert response is not None
        assert response.status == 200
        assert b"poison" not in response.body
    assert len(world.upstreams[0].connections) == 4


ANSWERS = {
    "both framings": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two equal lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length +5": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "length list": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "length empty": HEAD + b"Content-Length: \r\n\r\nhello",
    "control in a value": HEAD + b"X-A: a\x01b\r\nContent-Length: 5\r\n\r\nhello",
    "nul in a value": HEAD + b"X-A: a\x00b\r\nContent-Length: 5\r\n\r\nhello",
    "cr in a value": HEAD + b"X-A: a\rb\r\nContent-Length: 5\r\n\r\nhello",
    "folded": HEAD + b"X-A: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    "bare lf": HEAD + b"X-A: a\nContent-Length: 5\r\n\r\nhello",
    "space before colon": HEAD + b"X-A : a\r\nContent-Length: 5\r\n\r\nhello",
    "bad name": HEAD + b"X A: a\r\nContent-Length: 5\r\n\r\nhello",
    "encoding gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "encoding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding identity": HEAD + b"Transfer-Encoding: identity\r\n\r\nhello",
    "bad chunk at once": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_c12_answers_with_two_readings_are_502(make_world: MakeWorld, kind: str) -> None:
    world = await make_world()

    async def bad(connection: Connection, request: Request) -> None:
        await connection.send(ANSWERS[kind])
        await connection.gone()

    world.upstreams[0].script = bad
    client = await world.client()
    await client.send(chat())
    response = await client.response()
    assert response is not None
    assert response.status == 502 or not response.complete, f"passed on: {response.raw_head!r} {response.body!r}"
    await eventually(lambda: world.upstreams[0].open_connections == 0, what="the connection to be destroyed")


async def test_c12_a_bad_chunk_in_mid_stream_cuts_the_stream(make_world: MakeWorld) -> None:
    world = await make_world()

    async def bad(connection: Connection, request: Request) -> None:
        await connection.send(HEAD + CHUNKED + b"\r\n5\r\nhello\r\n")
        await asyncio.sleep(0.05)
        await connection.send(b"zz\r\nhello\r\n0\r\n\r\n")
        await connection.gone()

    world.upstreams[0].script = bad
    response = await world.ask(chat())
    assert response.status == 200
    assert not response.complete


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
async def test_c13_a_flood_of_interim_answers_is_502(make_world: MakeWorld, interim: bytes) -> None:
    world = await make_world()

    async def flood(connection: Connection, request: Request) -> None:
        await connection.send(interim * 1000 + reply())
        await connection.gone()

    world.upstreams[0].script = flood
    assert (await world.ask(chat())).status == 502
    await eventually(lambda: world.upstreams[0].open_connections == 0)


async def test_c13_a_few_interim_answers_are_skipped(make_world: MakeWorld) -> None:
    world = await make_world()

    async def hints(connection: Connection, request: Request) -> None:
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply())

    world.upstreams[0].script = hints
    response = await world.ask(chat())
    assert response.status == 200
    assert response.get("link") is None


async def test_c11_replies_of_every_kind_follow_each_other_on_one_connection(make_world: MakeWorld) -> None:
    """Whatever is remembered of one reply must not reach the next: framing, headers, reason."""
    world = await make_world()
    kinds = [
        reply(b"one", headers=b"X-One: 1\r\n"),
        reply(b"one", headers=b"X-One: 1\r\n"),
        reply(b"one!", headers=b"X-One: 1\r\n"),
        stream(3),
        reply(b"", "404 Not Found", b"X-None: 1\r\n"),
        HEAD + CHUNKED + b"\r\n5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 204 Gone Quiet\r\nX-Quiet: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(b"late", headers=b"X-Late: 1\r\n"),
        stream(1),
    ]
    turn = 0

    async def every(connection: Connection, request: Request) -> None:
        nonlocal turn
        data = kinds[turn % len(kinds)]
        split = (turn * 7919) % len(data)
        turn += 1
        await connection.send(data[:split])
        await asyncio.sleep(0.001)
        await connection.send(data[split:])

    world.upstreams[0].script = every
    client = await world.client()
    seen: dict[int, set[tuple[int, str, bytes, tuple[str, ...]]]] = {}
    for number in range(len(kinds) * 20):
        await client.send(chat(stream=number % 2 == 0))
        response = await client.response()
        assert response is not None
        assert response.complete
        names = tuple(name for name, _ in response.headers if name not in ("x-request-id", "connection"))
        assert len(names) == len(set(names)), f"headers of an earlier reply: {response.raw_head!r}"
        seen.setdefault(number % len(kinds), set()).add((response.status, response.reason, response.body, names))
    assert all(len(answers) == 1 for answers in seen.values()), seen
    assert len(world.upstreams[0].connections) == 1
