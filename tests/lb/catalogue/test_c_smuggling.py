"""Group C: messages that two parsers would read differently. C14, the large corpus, is in its own file."""

from __future__ import annotations

import asyncio

import pytest

from tests.lb.catalogue.client import chat, get
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.test_b_malformed import BODY, HOST, LINE, refused
from tests.lb.catalogue.upstream import Connection, reply, stream
from tests.lb.catalogue.wire import Request
from tests.lb.catalogue.world import eventually

CHUNKED = b"Transfer-Encoding: chunked\r\n"
FIVE = b"5\r\nhello\r\n0\r\n\r\n"


def framed(*lines: bytes, body: bytes = FIVE, line: bytes = LINE) -> bytes:
    return line + HOST + b"".join(lines) + b"\r\n" + body


BOTH = {
    "length first": framed(b"Content-Length: 15\r\n", CHUNKED),
    "encoding first": framed(CHUNKED, b"Content-Length: 15\r\n"),
    "length 0": framed(b"Content-Length: 0\r\n", CHUNKED),
    "smuggled": framed(b"Content-Length: 4\r\n", CHUNKED, body=b"5c\r\nGET /x HTTP/1.1\r\n"),
    "two of each": framed(CHUNKED, CHUNKED, b"Content-Length: 15\r\n"),
}


@pytest.mark.parametrize("kind", BOTH)
async def test_c01_both_framings_are_refused(make_world: MakeWorld, kind: str) -> None:
    world = await make_world()
    await refused(world, BOTH[kind], (400, 501))


LENGTHS = [
    b"5\r\nContent-Length: 5", b"5\r\nContent-Length: 6", b"5, 5", b"5,6", b"+5", b"-5", b"0x5", b"5_0", b"5 5",
    "٥".encode(), b"18446744073709551616", b"9" * 400, b"", b" ", b"5.0", b"5e0", b"five", b"5;q=1", b"\x0b5", b"5\x0c",
    b"\xa05", b"\xb5", b"0_5", b"1\r\nContent-Length: 01", b"5\r\ncontent-length:5",
]  # fmt: skip


@pytest.mark.parametrize("value", LENGTHS)
async def test_c02_a_content_length_that_is_not_one_number_is_refused(make_world: MakeWorld, value: bytes) -> None:
    world = await make_world(timeouts={"body_s": 0.5})
    await refused(world, framed(b"Content-Length: " + value + b"\r\n", body=b"hello"), (400, 413))


ENCODINGS = [
    b"xchunked", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"chunked;q=1", b"\x0bchunked",
    b"chunked\x0c", b"chunked\x00", b"", b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: identity",
    b"identity\r\nTransfer-Encoding: chunked", b"gzip", b"deflate", b"chunke", b"chunkedd", b",chunked", b"chunked,",
    b'"chunked"', b"'chunked'", b"chunked chunked", b"[chunked]", b"\xa0chunked", b"cow", b"trailers", b"x, chunked",
    b"compress", b"chunked\r\n x", b"\xef\xbb\xbfchunked", b"chun\xc5\xafked",
]  # fmt: skip


@pytest.mark.parametrize("value", ENCODINGS)
async def test_c03_a_transfer_encoding_that_is_not_chunked_is_refused(make_world: MakeWorld, value: bytes) -> None:
    world = await make_world(timeouts={"body_s": 0.5})
    await refused(world, framed(b"Transfer-Encoding: " + value + b"\r\n"), (400, 501))


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b" chunked ", b"\tchunked"])
async def test_c03_chunked_itself_is_understood(make_world: MakeWorld, value: bytes) -> None:
    world = await make_world()
    response = await world.ask(framed(b"Transfer-Encoding:" + value + b"\r\n", body=_chunks(BODY, 7)))
    assert response.status == 200
    assert world.upstreams[0].requests[0].body == BODY


def _chunks(body: bytes, size: int, ext: bytes = b"") -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), ext, part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "lines", [(CHUNKED,), (CHUNKED, b"Connection: keep-alive\r\n"), (CHUNKED, b"Content-Length: 5\r\n")]
)
async def test_c04_http_1_0_has_no_transfer_encoding(make_world: MakeWorld, lines: tuple[bytes, ...]) -> None:
    world = await make_world()
    await refused(world, framed(*lines, line=LINE.replace(b"1.1", b"1.0")), (400, 501))


SIZES = [
    b"+5", b"-5", b"0x5", b"5_0", b"5 ", b" 5", b"\t5", b"00000000000000005" * 2, b"1" + b"0" * 16, b"ffffffffffffffff", b"-1",
    b"", b"g", b"5g", b"5,", b"5\x00", b"\xd9\xa5", b"5.", b"'5'", b"5h\r\nhello", b"0 5", b"\x0b5", b"5\x0c",
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
async def test_c05_a_chunk_size_that_is_not_plain_hex_is_refused(make_world: MakeWorld, size: bytes) -> None:
    world = await make_world(timeouts={"body_s": 0.5})
    allowed = (413, 408) if size == b"ffffffffffffffff" else (400,)  # a number, and more than any body
    await refused(world, framed(CHUNKED, body=size + b"\r\nhello\r\n0\r\n\r\n"), allowed)


EXTENSIONS = {
    "17 kB in one": b"5;" + b"a" * 17_000 + b"\r\nhello\r\n0\r\n\r\n",
    "17 kB in many": b"".join(b"1;" + b"a" * 100 + b"\r\nx\r\n" for _ in range(250)) + b"0\r\n\r\n",
    "control": b"5;a\x01b\r\nhello\r\n0\r\n\r\n",
    "nul": b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
    "cr": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "lf": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "lf ends it": b"5;a\nhello\r\n0\r\n\r\n",
    "bare": b"5;\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", EXTENSIONS)
async def test_c06_bad_chunk_extensions_are_refused(make_world: MakeWorld, kind: str) -> None:
    world = await make_world(timeouts={"body_s": 0.5})
    await refused(world, framed(CHUNKED, body=EXTENSIONS[kind]))


async def test_c06_good_chunk_extensions_are_not_passed_on(make_world: MakeWorld) -> None:
    world = await make_world()
    response = await world.ask(framed(CHUNKED, body=_chunks(BODY, 20, b";name=value")))
    assert response.status == 200
    [connection] = world.upstreams[0].connections
    assert b"name=value" not in connection.received
    assert world.upstreams[0].requests[0].body == BODY


ENDS = {
    "no line end": b"5\r\nhello0\r\n\r\n",
    "spill": b"3\r\nhello\r\n0\r\n\r\n",
    "too short": b"7\r\nhello\r\n0\r\n\r\n" + b"x" * 20,
    "bare lf after data": b"5\r\nhello\n0\r\n\r\n",
    "bare lf after size": b"5\nhello\r\n0\r\n\r\n",
    "bare lf at the end": b"5\r\nhello\r\n0\n\n",
    "bare cr after data": b"5\r\nhello\r0\r\n\r\n",
    "three bytes": b"5\r\nhelloX\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", ENDS)
async def test_c07_chunks_that_end_wrongly_are_refused(make_world: MakeWorld, kind: str) -> None:
    world = await make_world(timeouts={"body_s": 0.5})
    await refused(world, framed(CHUNKED, body=ENDS[kind]))


@pytest.mark.parametrize(
    "trailer", [b"X-T: 1\r\n", b"Content-Length: 5\r\n", b"Authorization: Bearer x\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: evil\r\n", b"X-A: 1\r\nX-B: 2\r\n"]
)  # fmt: skip
async def test_c08_trailers_are_dropped_or_refused(make_world: MakeWorld, trailer: bytes) -> None:
    world = await make_world()
    payload = framed(CHUNKED, body=_chunks(BODY, 20)[:-2] + trailer + b"\r\n")
    response = await world.ask(payload)
    assert response.status in (200, 400)
    for connection in world.upstreams[0].connections:
        assert trailer.partition(b":")[0] not in connection.received.partition(b"\r\n\r\n")[2]
    for request in world.upstreams[0].requests:
        assert request.body == BODY
        assert request.get("x-t") is None
        assert request.get("authorization") is None


async def test_c08_trailers_without_end_are_refused(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"body_s": 0.5})
    flood = b"".join(b"X-%d: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" % number for number in range(600))
    await refused(world, framed(CHUNKED, body=b"0\r\n" + flood + b"\r\n"), (400, 431))


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/health", "/v1/unknown"])
async def test_c09_a_body_where_none_belongs_is_not_taken_for_a_request(
    make_world: MakeWorld, method: str, path: str
) -> None:
    world = await make_world(paths={"allow": ["/v1/unknown"]})
    smuggled = get("/v1/chat/completions?smuggled", method="POST")
    client = await world.client()
    await client.send(get(path, f"Content-Length: {len(smuggled)}\r\n", method) + smuggled)
    response = await client.response(head_only=method == "HEAD")
    assert response is not None
    assert response.status < 500
    await asyncio.sleep(0.05)
    for request in world.upstreams[0].requests:
        assert "smuggled" not in request.target
        assert request.body in (smuggled, b"")


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
    assert (await _second(world)).status in (200, 413)
    assert len(world.upstreams[0].connections) == 2


async def _second(world):  # type: ignore[no-untyped-def]
    return await world.ask(chat())


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


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
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
