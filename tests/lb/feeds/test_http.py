"""The client against servers that misbehave on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from lb.feeds.http import BODY_BYTES, FetchError, OwnStallError, ProbeClient
from tests.lb.feeds.replica import FakeReplica, hang

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw(speak: Speak) -> AsyncIterator[str]:
    """A server that speaks bytes as the test says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def says(answer: bytes) -> Speak:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return speak


async def fetch_from(url: str, *, timeout_s: float = 1.0) -> bytes:
    async with ProbeClient() as client:
        return (await client.fetch(url, timeout_s=timeout_s)).body


async def test_nobody_listens() -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(FetchError, match=r"^connection refused$"):
        await fetch_from(f"http://127.0.0.1:{port}/")


async def test_a_hang_ends_at_the_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw(silent) as url:
        started = time.monotonic()
        with pytest.raises(FetchError, match=r"^timed out after 0.2 s$"):
            await fetch_from(url, timeout_s=0.2)
        assert time.monotonic() - started < 2


async def test_a_body_that_trickles_ends_at_the_deadline() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with raw(trickle) as url:
        with pytest.raises(FetchError, match="timed out"):
            await fetch_from(url, timeout_s=0.3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", "in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "not HTTP|closed the connection"),
    ],
)
async def test_broken_answers_have_a_reason(answer: bytes, reason: str) -> None:
    async with raw(says(answer)) as url:
        with pytest.raises(FetchError, match=reason) as error:
            await fetch_from(url)
    assert 0 < len(str(error.value)) <= 200


async def test_ten_megabytes_are_cut_and_not_fetched() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (200 << 20))
        while sent < 200 << 20:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with raw(flood) as url, ProbeClient() as client:
        answer = await client.fetch(url, timeout_s=5.0)
        assert answer.truncated
        assert len(answer.body) == BODY_BYTES
        await asyncio.sleep(0.1)
    assert sent < 32 << 20


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    elsewhere = FakeReplica({"/": 200})
    await elsewhere.start()

    async def redirect(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"http://127.0.0.1:{elsewhere.port}/")

    replica = FakeReplica({"/health": redirect})
    await replica.start()
    async with ProbeClient() as client:
        answer = await client.fetch(replica.endpoint().url + "/health", timeout_s=1.0)
    assert answer.status == 302
    assert elsewhere.seen == []
    await replica.stop()
    await elsewhere.stop()


async def test_a_compressed_answer_is_refused_and_not_unpacked() -> None:
    bomb = gzip.compress(b"\0" * (20 << 20))
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    async with raw(says(head + bomb)) as url:
        with pytest.raises(FetchError, match="compressed"):
            await fetch_from(url)


async def test_cookies_are_not_kept() -> None:
    cookies: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    replica = FakeReplica({"/": answer})
    await replica.start()
    async with ProbeClient() as client:
        for _ in range(2):
            await client.fetch(replica.endpoint().url + "/", timeout_s=1.0)
    await replica.stop()
    assert cookies == [None, None]


async def test_a_pooled_connection_that_died_is_replaced() -> None:
    replica = FakeReplica({"/": "one"})
    await replica.start()
    async with ProbeClient() as client:
        await client.fetch(replica.endpoint().url + "/", timeout_s=1.0)
        await replica.stop()
        replica.answers["/"] = "two"
        await replica.start()
        assert (await client.fetch(replica.endpoint().url + "/", timeout_s=1.0)).body == b"two"
    await replica.stop()


async def test_our_own_stall_is_not_the_replicas_failure() -> None:
    replica = FakeReplica({"/": hang})
    await replica.start()
    async with ProbeClient() as client:
        asking = asyncio.create_task(client.fetch(replica.endpoint().url + "/", timeout_s=0.2))
        await asyncio.sleep(0.05)
        time.sleep(0.8)  # noqa: ASYNC251
        with pytest.raises(OwnStallError, match="stood still"):
            await asking
    await replica.stop()


async def test_a_closed_client_says_so() -> None:
    client = ProbeClient()
    with pytest.raises(FetchError, match="closed"):
        await client.fetch("http://127.0.0.1:1/", timeout_s=1.0)


@pytest.mark.parametrize(("name", "reached"), [("gpu.internal", True), ("other.internal", False), (None, True)])
async def test_a_certificate_is_checked_against_the_name_that_the_replica_must_have(
    name: str | None, reached: bool
) -> None:
    certificate = Path(__file__).parents[2] / "data" / "tls" / "localhost.pem"
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, certificate.with_suffix(".key"))

    async def healthy(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/health", healthy)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_side).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/health"
    try:
        async with ProbeClient(tls=ssl.create_default_context(cafile=str(certificate))) as client:
            if reached:
                assert (await client.fetch(url, timeout_s=5.0, tls_name=name)).status == 200
            else:
                with pytest.raises(FetchError):
                    await client.fetch(url, timeout_s=5.0, tls_name=name)
    finally:
        await runner.cleanup()


async def test_l10_a_guarded_name_is_asked_only_where_a_replica_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "127.0.0.1"

    def look_up(host: str, port: int, *rest: object, **named: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    replica = FakeReplica({"/health": "fine"})
    await replica.start()
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"http://gpu-7.example:{replica.port}/health"
    try:
        async with ProbeClient(fresh=True) as client:
            assert (await client.fetch(url, timeout_s=2.0, guarded=True)).body == b"fine"
        address = "169.254.169.254"
        async with ProbeClient(fresh=True) as client:
            with pytest.raises(FetchError, match=r"'gpu-7\.example' resolves to 169\.254\.169\.254"):
                await client.fetch(url, timeout_s=2.0, guarded=True)
    finally:
        await replica.stop()
