"""A simulated runtime in the test's own loop, and a plain client for bytes on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from autoscaler.mock.server import MockServer
from autoscaler.mock.settings import MockSettings


class Wire:
    """HTTP/1.1 by hand."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def exchange(self, raw: bytes) -> bytes:
        """Send, half-close, and read to the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body bytes (chunk framing included where there is one)."""
        answer = await self.exchange(request_bytes(path, body, close=True))
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest

    async def get(self, path: str) -> tuple[int, bytes]:
        answer = await self.exchange(f"GET {path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\n\r\n".encode())
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest

    async def state(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((await self.get("/mock/state"))[1])
        return value


def request_bytes(path: str, body: dict[str, Any], *, close: bool = False) -> bytes:
    raw = json.dumps(body).encode()
    last = "connection: close\r\n" if close else ""
    return f"POST {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {len(raw)}\r\n{last}\r\n".encode() + raw


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "mock-model", "messages": [{"role": "user", "content": "hello there"}], **fields}


async def until(state: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that a socket event brings about."""
    async with asyncio.timeout(5):
        while not await state():  # noqa: ASYNC110 - what is waited for can only be asked over HTTP
            await asyncio.sleep(0.005)


Start = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a mock with the given settings."""
    async with AsyncExitStack() as stack:

        async def begin(**fields: Any) -> Wire:
            server = MockServer(MockSettings(**{"speed": 50.0, **fields}))
            stack.callback(server.close)
            await server.start()
            return Wire(server.ports[0])

        yield begin
