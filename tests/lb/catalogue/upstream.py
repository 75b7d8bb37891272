"""A replica that does as it is told: a script per request, everything that reaches it written down."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable

from tests.lb.catalogue.wire import DirtyError, Request, Source, read_request

OK_BODY = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
).encode()
LINGER_ZERO = struct.pack("ii", 1, 0)


def reply(
    body: bytes = OK_BODY, status: str = "200 OK", headers: bytes = b"Content-Type: application/json\r\n"
) -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status.encode(), headers, len(body), body)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str = "token", finish: str | None = None) -> bytes:
    """One SSE event of a chat stream."""
    delta = {} if finish else {"content": text}
    data = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def stream(events: int = 3) -> bytes:
    """A whole chat stream, well ended."""
    parts = [STREAM_HEAD, *(chunk(event(f"t{number}")) for number in range(events))]
    return b"".join([*parts, chunk(event(finish="stop")), chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"])


class Connection:
    """One connection that the proxy opened."""

    def __init__(self, upstream: Upstream, sock: socket.socket) -> None:
        self._upstream = upstream
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.source = Source(self._receive)
        self.received = b""
        self.requests = 0
        self.closed = False

    async def _receive(self, most: int) -> bytes:
        try:
            data = await self._loop.sock_recv(self._sock, most)
        except ConnectionError:
            data = b""
        self.received += data
        return data

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def gone(self, timeout_s: float = 5.0) -> float:
        """Wait until the proxy closes this connection; returns after how long. Raises TimeoutError."""
        started = self._loop.time()
        async with asyncio.timeout(timeout_s):
            while await self.source.more():
                pass
        return self._loop.time() - started

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._sock.close()

    def reset(self) -> None:
        if not self.closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            self.close()


Script = Callable[[Connection, Request], Awaitable[None]]


async def well_behaved(connection: Connection, request: Request) -> None:
    """Answer at once: health, models, a stream if asked for one, or a completion."""
    if request.method == "GET":
        await connection.send(reply(b'{"data":[{"id":"m"}]}'))
    elif b'"stream":true' in request.body.replace(b" ", b""):
        await connection.send(stream())
    else:
        await connection.send(reply())


class Upstream:
    """A listener. `script` answers each request; `on_connect` may take a connection before its first request."""

    def __init__(self) -> None:
        self.script: Script = well_behaved
        self.on_connect: Callable[[Connection], Awaitable[bool]] | None = None
        """Returns True if it has dealt with the connection."""
        self.requests: list[Request] = []
        self.dirty: list[str] = []
        self.connections: list[Connection] = []
        self.address = ("", 0)
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> Upstream:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(512)
        listener.setblocking(False)
        self._listener = listener
        self.address = listener.getsockname()
        self._spawn(self._accept(listener))
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    @property
    def bodies(self) -> list[Request]:
        """Requests that are work, not probes."""
        return [request for request in self.requests if request.method != "GET"]

    @property
    def open_connections(self) -> int:
        return sum(not connection.closed for connection in self.connections)

    def _spawn(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)  # type: ignore[arg-type]
        task.add_done_callback(self._tasks.discard)  # type: ignore[arg-type]

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, sock)
            self.connections.append(connection)
            self._spawn(self._serve(connection))

    async def _serve(self, connection: Connection) -> None:
        try:
            if self.on_connect is not None and await self.on_connect(connection):
                return
            while not connection.closed:
                request = await read_request(connection.source)
                if request is None:
                    break
                connection.requests += 1
                self.requests.append(request)
                await self.script(connection, request)
        except DirtyError as error:
            self.dirty.append(str(error))
        except (ConnectionError, TimeoutError, OSError):
            pass
        finally:
            connection.close()

    async def stop_listening(self) -> None:
        """New connections are refused; open ones go on."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            accepting = next(iter(self._tasks), None)
            for task in list(self._tasks):
                if "_accept" in repr(task.get_coro()):
                    accepting = task
            assert accepting is not None
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            listener.close()

    async def close(self) -> None:
        await self.stop_listening()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self.connections:
            connection.close()
