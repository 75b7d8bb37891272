"""Closed-loop load, cheap enough that the proxy is what limits: raw protocols on uvloop, bodies made beforehand."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

TOKEN_MARK = b'"tok "'
"""Once in every streamed chunk of the instant mock."""
_TICK_S = 0.05


@dataclass(slots=True)
class Counts:
    """What the clients of one load have seen."""

    requests: int = 0
    chunks: int = 0
    errors: int = 0
    cut: int = 0
    latencies_s: list[float] = field(default_factory=list)


def request_bytes(port: int, body: bytes) -> bytes:
    """A chat request with the headers that an SDK sends."""
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: application/json\r\n"
        f"content-type: application/json\r\nuser-agent: bench/1.0\r\naccept-encoding: gzip, deflate\r\n"
        f"authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def bodies(
    count: int, size: int, *, stream: bool = False, max_tokens: int = 64, chunks: int | None = None
) -> list[bytes]:
    """Different chat bodies of about `size` bytes; they share no prefix, so that affinity spreads them.

    `chunks`: what a stream really gives, where that is not `max_tokens`.
    """
    rng = random.Random(size)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    made = []
    for index in range(count):
        text = f"{index} " + " ".join(rng.choices(words, k=max(1, size // 6)))
        body: dict[str, Any] = {
            "model": "mock-model",
            "messages": [
                {"role": "system", "content": f"You are assistant {index}."},
                {"role": "user", "content": text[: max(1, size - 180)]},
            ],
            "max_tokens": max_tokens,
            "temperature": 0.7,
            "stream": stream,
        }
        if chunks is not None:
            body["mock_output_tokens"] = chunks
        made.append(json.dumps(body).encode())
    return made


class Client(asyncio.Protocol):
    """One connection that always has one request open."""

    def __init__(self, load: Load, cut_every: int) -> None:
        self._load = load
        self._cut_every = cut_every
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._open = False
        self._began = 0.0
        self._fresh = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._load.clients.add(self)
        self._send()

    def data_received(self, data: bytes) -> None:
        counts = self._load.counts
        counts.chunks += data.count(TOKEN_MARK)
        if self._cut_every and self._open and (counts.requests + counts.cut) % self._cut_every == 0:
            counts.cut += 1
            self._open = False
            assert self._transport is not None
            self._transport.abort()
            self._load.reconnect(self)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            counts.errors += 1
            if self._transport is not None:
                self._transport.abort()

    def on_message_complete(self) -> None:
        load = self._load
        if self._parser.get_status_code() != 200:
            load.counts.errors += 1
        load.counts.requests += 1
        self._open = False
        if load.timed:
            load.counts.latencies_s.append(time.perf_counter() - self._began)
        if self._parser.should_keep_alive():
            self._send()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self in self._load.clients:
            if self._open:
                self._load.counts.errors += 1
            self._load.reconnect(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        if self._load.stopping or self._transport is None:
            return
        self._open = True
        self._began = time.perf_counter()  # uvloop's own clock counts whole milliseconds
        self._transport.write(next(self._load.payloads))


class Load:
    """`connections` clients against one port, until stopped."""

    def __init__(
        self, port: int, payloads: Sequence[bytes], connections: int, *, timed: bool = False, cut_every: int = 0
    ) -> None:
        self.counts = Counts()
        self.timed = timed
        self.stopping = False
        self.clients: set[Client] = set()
        self.payloads: Iterator[bytes] = itertools.cycle([request_bytes(port, body) for body in payloads])
        self.loop = asyncio.get_running_loop()
        self._port = port
        self._connections = connections
        self._cut_every = cut_every
        self._connecting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect all; a few hundred at a time, so that no backlog overflows."""
        for first in range(0, self._connections, 200):
            await asyncio.gather(*(self._connect() for _ in range(min(200, self._connections - first))))

    async def stop(self) -> None:
        """Cut what is open."""
        self.stopping = True
        clients, self.clients = self.clients, set()
        for client in clients:
            client.close()
        for task in self._connecting:
            task.cancel()
        await asyncio.sleep(_TICK_S)

    def reconnect(self, client: Client) -> None:
        """Replace a connection that is gone."""
        self.clients.discard(client)
        if not self.stopping:
            task = asyncio.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        for _ in range(20):
            try:
                await self.loop.create_connection(lambda: Client(self, self._cut_every), "127.0.0.1", self._port)
                return
            except OSError:
                self.counts.errors += 1
                await asyncio.sleep(_TICK_S)

    async def until(self, reached: Callable[[Counts], bool], timeout_s: float) -> None:
        """Wait for the counts; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not reached(self.counts):  # noqa: ASYNC110 - counters have no event of their own
                await asyncio.sleep(_TICK_S)
