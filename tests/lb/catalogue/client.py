"""A client that sends what it is told, byte for byte."""

from __future__ import annotations

import asyncio
import json
import socket

from tests.lb.catalogue.upstream import LINGER_ZERO
from tests.lb.catalogue.wire import Response, Source, read_response


def chat(
    *,
    model: str = "m",
    stream: bool = False,
    headers: str = "",
    text: str = "hello",
    path: str = "/v1/chat/completions",
    version: str = "1.1",
) -> bytes:
    """A chat request, whole and proper."""
    document: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if stream:
        document["stream"] = True
    return post(json.dumps(document).encode(), headers=headers, path=path, version=version)


def post(body: bytes, *, headers: str = "", path: str = "/v1/chat/completions", version: str = "1.1") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: tidegate.test\r\nContent-Type: application/json\r\n{headers}"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def get(path: str, headers: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: tidegate.test\r\n{headers}\r\n".encode()


class Client:
    """One connection to the proxy."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.source = Source(self._receive)
        self.was_reset = False
        self.closed = False

    @classmethod
    async def connect(cls, address: tuple[str, int], *, receive_buffer: int | None = None) -> Client:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    async def _receive(self, most: int) -> bytes:
        try:
            return await self._loop.sock_recv(self._sock, most)
        except ConnectionError:
            self.was_reset = True
            return b""

    async def send(self, data: bytes) -> None:
        """Send all of it, as far as the proxy takes it."""
        try:
            await self._loop.sock_sendall(self._sock, data)
        except ConnectionError:
            self.was_reset = True

    async def receive(self, most: int = 65_536, timeout_s: float = 5.0) -> bytes:
        """Raw bytes; empty at the end."""
        async with asyncio.timeout(timeout_s):
            if not self.source.buffer:
                await self.source.more()
            data, self.source.buffer = self.source.buffer[:most], self.source.buffer[most:]
            return data

    async def response(self, *, head_only: bool = False, timeout_s: float = 8.0) -> Response | None:
        async with asyncio.timeout(timeout_s):
            return await read_response(self.source, head_only=head_only)

    async def ended(self, timeout_s: float = 5.0) -> float:
        """Wait until the proxy closes the connection; returns after how long. Raises TimeoutError."""
        started = self._loop.time()
        async with asyncio.timeout(timeout_s):
            while not self.source.ended and await self.source.more():
                pass
        return self._loop.time() - started

    async def stays_open(self, for_s: float) -> bool:
        """Nothing comes and nothing closes for that long."""
        try:
            async with asyncio.timeout(for_s):
                await self.source.more()
        except TimeoutError:
            return True
        return False

    def half_close(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._sock.close()

    def reset(self) -> None:
        if not self.closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            self.close()
