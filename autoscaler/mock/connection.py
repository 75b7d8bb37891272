"""One client connection of the simulated runtime: HTTP/1.1 with keep-alive and pipelining, kept cheap."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, Protocol, cast

import httptools

_KEPT_HEADERS = frozenset({b"x-mock-output-tokens", b"x-mock-prompt-tokens", b"x-request-id", b"expect"})
_REASONS = {status.value: status.phrase for status in HTTPStatus}
# SO_LINGER with time 0 makes close() send RST.
_RESET = struct.pack("ii", 1, 0)


class Request(NamedTuple):
    """One whole request."""

    method: bytes
    path: bytes
    """Without query."""
    headers: dict[bytes, bytes]
    """The few that matter here, names in lower case."""
    body: bytes
    keep_alive: bool


class App(Protocol):
    """Who answers."""

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer now or later, through the connection's methods."""

    def connected(self, connection: Connection) -> None: ...

    def gone(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Calls of `reply`, `begin_stream` … `end_stream` answer the oldest request; the next one is handed out after."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._queue: deque[Request] = deque()
        self._keep_alive = True
        self.busy = False
        """An answer is owed."""
        self.blocked = False
        """The client does not read; tokens wait."""
        self.closing = False
        """Close after the answer."""
        self.on_gone: Callable[[], None] | None = None
        """Called once if the client leaves before the answer is complete."""
        self.on_drained: Callable[[], None] | None = None

    # asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        self._app.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._queue.clear()
        self._app.gone(self)
        self._left()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cut()
        except httptools.HttpParserError:
            self.closing = True
            self.reply(400, b'{"error":{"message":"Invalid HTTP request","type":"BadRequestError","code":400}}')

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        if self.on_drained is not None:
            self.on_drained()

    # httptools
    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _KEPT_HEADERS:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        path = self._url.partition(b"?")[0]
        request = Request(self._parser.get_method(), path, self._headers, body, self._parser.should_keep_alive())
        if self.busy:
            self._queue.append(request)
        else:
            self._hand_out(request)

    # answers
    def reply(self, status: int, body: bytes = b"", kind: str = "application/json", *extra: str) -> None:
        """A whole answer; `extra` are further header lines."""
        lines = "".join(f"{line}\r\n" for line in extra)
        close = "connection: close\r\n" if self.closing or not self._keep_alive else ""
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\nserver: tidegate-mock\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(body)}\r\n{lines}{close}\r\n"
        )
        self.write(head.encode("latin-1") + body)
        self.done()

    def begin_stream(self, *extra: str) -> None:
        lines = "".join(f"{line}\r\n" for line in extra)
        close = "connection: close\r\n" if self.closing or not self._keep_alive else ""
        self.write(
            b"HTTP/1.1 200 OK\r\nserver: tidegate-mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n" + f"{lines}{close}\r\n".encode("latin-1")
        )

    def send(self, data: bytes) -> None:
        """One chunk of a stream."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.write(b"0\r\n\r\n")
        self.done()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def done(self) -> None:
        """The answer is complete."""
        self.busy = False
        self.on_gone = self.on_drained = None
        if self.closing or not self._keep_alive:
            self.cut()
        elif self._queue:
            self._hand_out(self._queue.popleft())

    def cut(self) -> None:
        """Close, as a process that ends does."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close with RST."""
        if self._transport is not None:
            sock: socket.socket | None = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def _hand_out(self, request: Request) -> None:
        self.busy = True
        self._keep_alive = request.keep_alive
        self._app.handle(self, request)

    def _left(self) -> None:
        callback, self.on_gone, self.on_drained = self.on_gone, None, None
        if callback is not None:
            callback()
