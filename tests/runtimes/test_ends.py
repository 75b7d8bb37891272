"""Ends that are none: recorded tails of runtimes that are not built here, replayed behind the real balancer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.runtimes.balancer import Balancer, balancing
from tests.runtimes.processes import Server, free_port
from tests.runtimes.servers import MODEL
from tests.runtimes.streams import Stream, read_stream

NEEDS = ()

MODELS = b'{"object":"list","data":[{"id":"%b","object":"model","owned_by":"me"}]}' % MODEL.encode()
WORD = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
)
LAST = WORD.replace(b'{"content":"word "}', b"{}").replace(b"null", b'"stop"')
DONE = b"data: [DONE]\n\n"


class Replay(Server):
    """A server that is not a process: says the same stream to everybody."""

    def __init__(self, port: int) -> None:
        self.name, self.port, self.url, self.metrics = "replay", port, f"http://127.0.0.1:{port}", None


@asynccontextmanager
async def replaying(tmp: Path, *events: bytes) -> AsyncIterator[Balancer]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        if path == b"/v1/chat/completions":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for event in events:
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(0.02)
            writer.write(b"0\r\n\r\n")
        else:
            body = MODELS if path == b"/v1/models" else b""
            status = b"200 OK" if path in (b"/v1/models", b"/health") else b"404 Not Found"
            writer.write(
                b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body)
            )
        await writer.drain()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        async with balancing(tmp, Replay(port)) as balancer:
            await balancer.until_up(Replay(port))
            yield balancer
    finally:
        server.close()


async def ask(balancer: Balancer) -> Stream:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    async with balancer.open("/v1/chat/completions", body) as response:
        return await read_stream(response)


async def test_a_whole_stream_is_passed_on(tmp_path: Path) -> None:
    async with replaying(tmp_path, WORD, WORD, LAST, DONE) as balancer:
        stream = await ask(balancer)
    assert stream.clean
    assert stream.raw == WORD + WORD + LAST + DONE


async def test_done_without_a_last_chunk_is_no_end(tmp_path: Path) -> None:
    """llama-cpp-python, told to stop, ends its streams like this."""
    async with replaying(tmp_path, WORD, WORD, DONE) as balancer:
        stream = await ask(balancer)
    assert not stream.done
    assert stream.error is not None or stream.broken


@pytest.mark.parametrize("events", [(WORD, WORD), (WORD,)])
async def test_an_end_without_any_mark_is_none(tmp_path: Path, events: tuple[bytes, ...]) -> None:
    async with replaying(tmp_path, *events) as balancer:
        stream = await ask(balancer)
    assert not stream.clean
    assert stream.error is not None or stream.broken


async def test_a_last_chunk_without_done_is_an_end(tmp_path: Path) -> None:
    async with replaying(tmp_path, WORD, LAST) as balancer:
        stream = await ask(balancer)
    assert stream.finish_reason == "stop"
    assert stream.error is None
    assert not stream.broken
