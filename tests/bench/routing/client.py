"""Open-loop client: every request is sent when it is due, whatever happened to those before."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import cast

import httptools

from tests.bench.routing.outcome import Outcome
from tests.bench.routing.workload import Item, body

_TOKEN = b'"tok '
_DONE = b"[DONE]"
_SWEEP_S = 0.2
_HEADERS = "accept: text/event-stream\r\ncontent-type: application/json\r\nuser-agent: bench/1.0\r\n"


class _Connection(asyncio.Protocol):
    """One keep-alive connection; at most one request at a time."""

    def __init__(self, client: OpenLoop, port: int) -> None:
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._tail = b""
        self.port = port
        self.transport: asyncio.Transport | None = None
        self.index: int | None = None
        self.done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        self._acknowledge()

    def data_received(self, data: bytes) -> None:
        self._acknowledge()
        index = self.index
        if index is not None:
            outcome = self._client.outcomes[index]
            if outcome.first_s is None and _TOKEN in data:
                outcome.first_s = self._client.since_due(index)
            if _DONE in self._tail + data:
                self.done = True
            self._tail = data[-len(_DONE) :]
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.fail("not HTTP")

    def _acknowledge(self) -> None:
        """No delayed acknowledgements: their 40 ms, met by a proxy that leaves Nagle's algorithm on, would be counted
        `speed` times over in model time."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def on_message_complete(self) -> None:
        if self.index is None:
            return
        status = self._parser.get_status_code()
        if status != 200:
            self._end(f"status {status}")
        else:
            self._end("" if self.done else "stream without its end")
        if self._parser.should_keep_alive() and self.transport is not None:
            self._client.give_back(self)
        elif self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._client.forget(self)
        if self.index is not None:
            self._end("reset" if isinstance(exc, ConnectionResetError) else "closed")

    def fail(self, why: str) -> None:
        """Give the request up and the connection with it."""
        if self.index is not None:
            self._end(why)
        if self.transport is not None:
            self.transport.abort()

    def send(self, index: int, raw: bytes) -> None:
        assert self.transport is not None
        self.index, self.done, self._tail = index, False, b""
        self.transport.write(raw)

    def _end(self, failure: str) -> None:
        index, self.index = self.index, None
        assert index is not None
        self._client.ended(index, failure)


class OpenLoop:
    """Plays a workload against one port, or against the port that `ports_by_request` names for each request."""

    def __init__(
        self, items: Sequence[Item], ports_by_request: Sequence[int], speed: float, patience_s: float, seed: int
    ) -> None:
        self.outcomes = [Outcome() for _ in items]
        self._items = items
        self._ports = ports_by_request
        self._speed = speed
        self._patience_s = patience_s
        self._seed = seed
        self._idle: dict[int, list[_Connection]] = {}
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._open: dict[int, _Connection | None] = {}
        self._zero = 0.0

    def since_due(self, index: int) -> float:
        """Model seconds since the request was due."""
        return (time.monotonic() - self._zero) * self._speed - self._items[index].at_s

    async def run(self, zero: float) -> None:
        """`zero` is the monotonic time of model second 0. Returns when every request has ended, one way or another."""
        self._zero = zero
        for index, item in enumerate(self._items):
            raw = self._raw(index, item)
            wait_s = zero + item.at_s / self._speed - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self._open[index] = None
            self._sending[index] = asyncio.create_task(self._send(index, raw))
            if index % 64 == 0:
                self._sweep()
        while self._open:
            await asyncio.sleep(_SWEEP_S)
            self._sweep()
        for connections in self._idle.values():
            for connection in list(connections):
                if connection.transport is not None:
                    connection.transport.abort()

    def ended(self, index: int, failure: str) -> None:
        outcome = self.outcomes[index]
        outcome.failure = failure
        outcome.end_s = self.since_due(index)
        self._open.pop(index, None)

    def give_back(self, connection: _Connection) -> None:
        self._idle.setdefault(connection.port, []).append(connection)

    def forget(self, connection: _Connection) -> None:
        idle = self._idle.get(connection.port, [])
        if connection in idle:
            idle.remove(connection)

    async def _send(self, index: int, raw: bytes) -> None:
        port = self._ports[index]
        try:
            idle = self._idle.get(port)
            connection = idle.pop() if idle else None
            if connection is None or connection.transport is None or connection.transport.is_closing():
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(lambda: _Connection(self, port), "127.0.0.1", port)
            self.outcomes[index].late_s = self.since_due(index)
            if index in self._open:
                self._open[index] = connection
                connection.send(index, raw)
        except OSError as error:
            self.ended(index, type(error).__name__)
        finally:
            del self._sending[index]

    def _sweep(self) -> None:
        for index, connection in list(self._open.items()):
            if self.since_due(index) > self._patience_s * self._speed:
                if connection is not None and connection.index == index:
                    connection.fail("no end in time")
                else:
                    self.ended(index, "no end in time")

    def _raw(self, index: int, item: Item) -> bytes:
        path, payload = body(item, index, self._seed)
        return (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._ports[index]}\r\n{_HEADERS}"
            f"content-length: {len(payload)}\r\n\r\n"
        ).encode() + payload
