"""Just enough HTTP over asyncio streams for the demo: one request a connection."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and when, in seconds from the request."""

    status: int
    request_id: str
    first_s: float
    """To the first byte of the body."""
    total_s: float
    body: bytes


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, as the settings write it."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def exchange(address: str, method: str, path: str, body: bytes = b"", timeout_s: float = 120.0) -> Answer:
    """One request. Raises OSError or TimeoutError when there is no answer, ValueError when it is no HTTP."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                + body
            )
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            except asyncio.IncompleteReadError:
                raise ConnectionResetError(f"{address} closed the connection without an answer") from None
            first = await reader.read(65_536)
            first_s = loop.time() - began
            rest = await reader.read()
        finally:
            writer.close()
    lines = head.split("\r\n")
    names = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    status = int(lines[0].split()[1])
    return Answer(status, names.get("x-request-id", ""), first_s, loop.time() - began, first + rest)


async def get_json(address: str, path: str) -> dict[str, Any] | None:
    """A JSON object from the admin API; None while it does not answer with one."""
    try:
        answer = await exchange(address, "GET", path, timeout_s=2.0)
        value = json.loads(answer.body)
    except (OSError, ValueError, TimeoutError):
        return None
    return value if answer.status == 200 and isinstance(value, dict) else None
