"""What the rows share: payloads, scripts and the questions asked of their outcome."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from tests.lb.catalogue.client import chat
from tests.lb.catalogue.upstream import (
    Connection,
    Script,
    Upstream,
)
from tests.lb.catalogue.wire import Request, Response
from tests.lb.catalogue.world import World, eventually

SLACK_S = 0.4
"""A busy machine may wake a test late; deadlines must not be early, and not later than this."""
HOST = b"Host: tidegate.test\r\n"
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
BODY = chat().partition(b"\r\n\r\n")[2]
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FIVE = b"5\r\nhello\r\n0\r\n\r\n"


def with_headers(*lines: bytes, line: bytes = LINE, body: bytes = BODY) -> bytes:
    """A chat request with these further header lines, each with its own line end."""
    return line + HOST + b"".join(lines) + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def refused(world: World, payload: bytes, allowed: tuple[int, ...] = (400,)) -> Response:
    """The payload is answered with an error, the connection closed, and no replica hears of it."""
    client = await world.client()
    await client.send(payload)
    response = await client.response()
    assert response is not None, "closed without an answer"
    assert response.status in allowed, f"{response.status} for {payload[:200]!r}"
    assert response.close
    await client.ended()
    assert not world.upstreams[0].connections, "a replica heard of it"
    await eventually(lambda: world.recorder.reasons, what="the refusal to be counted")
    return response


def framed(*lines: bytes, body: bytes = FIVE, line: bytes = LINE) -> bytes:
    return line + HOST + b"".join(lines) + b"\r\n" + body


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def silent(connection: Connection, request: Request) -> None:
    await connection.gone()


async def freed_after(world: World) -> float:
    """How long until the replica's connection is closed, from now."""
    started = time.monotonic()
    upstream = world.upstreams[0]
    await eventually(lambda: upstream.open_connections == 0, what="the replica to be freed")
    return time.monotonic() - started


async def ask_many(world: World, count: int, request: bytes = b"") -> list[Response]:
    return [await world.ask(request or chat()) for _ in range(count)]


def is_out(world: World, upstream: Upstream) -> bool:
    return world.state_of(upstream) != "ready"


async def hang(connection: Connection, request: Request) -> None:
    await connection.gone(30)


def always(answer: bytes) -> Script:
    """The same answer to every request."""

    async def script(connection: Connection, request: Request) -> None:
        await connection.send(answer)

    return script


def assert_cut_with_error(response: Response | None) -> None:
    """The stream began, an error event tells why, and its framing has no proper end."""
    assert response is not None
    assert response.status == 200
    assert b"first" in response.body
    assert b"[DONE]" not in response.body
    assert b'"error"' in response.body
    assert not response.complete, "a cut stream looks like a clean end"
