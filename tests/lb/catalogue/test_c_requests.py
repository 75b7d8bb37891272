"""Group C, requests that two parsers would read differently. C14, the large corpus, is in its own file."""

from __future__ import annotations

import asyncio

import pytest

from tests.lb.catalogue.client import get
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    BODY,
    CHUNKED,
    LINE,
    framed,
    refused,
)

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
    b"xchunked", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"chunked;q=1",
    b"\x0bchunked", b"chunked\x0c", b"chunked\x00", b"", b"chunked\r\nTransfer-Encoding: chunked",
    b"chunked\r\nTransfer-Encoding: identity", b"identity\r\nTransfer-Encoding: chunked", b"gzip", b"deflate",
    b"chunke", b"chunkedd", b",chunked", b"chunked,", b'"chunked"', b"'chunked'", b"chunked chunked", b"[chunked]",
    b"\xa0chunked", b"cow", b"trailers", b"x, chunked", b"compress", b"chunked\r\n x", b"\xef\xbb\xbfchunked",
    b"chun\xc5\xafked",
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
    b"+5", b"-5", b"0x5", b"5_0", b"5 ", b" 5", b"\t5", b"00000000000000005" * 2, b"1" + b"0" * 16,
    b"ffffffffffffffff", b"-1", b"", b"g", b"5g", b"5,", b"5\x00", b"\xd9\xa5", b"5.", b"'5'", b"5h\r\nhello",
    b"0 5", b"\x0b5", b"5\x0c",
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


TRAILERS = [
    b"X-T: 1\r\n", b"Content-Length: 5\r\n", b"Authorization: Bearer x\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: evil\r\n", b"X-A: 1\r\nX-B: 2\r\n",
]  # fmt: skip


@pytest.mark.parametrize("trailer", TRAILERS)
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
