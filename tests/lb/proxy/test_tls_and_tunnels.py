"""HTTPS on both sides and WebSocket tunnels, with real clients and servers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from lb.effects import Outcome
from lb.endpoint import Endpoint
from lb.errors import Reason
from lb.gateway import Gateway
from lb.proxy.observer import RequestRecord
from lb.proxy.server import ProxyServer
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import LbSettings
from tests.lb.catalogue.world import eventually

CERTIFICATE = Path(__file__).parents[2] / "data" / "tls" / "localhost.pem"
KEY = CERTIFICATE.with_suffix(".key")
ANSWER = {"id": "1", "choices": [{"finish_reason": "stop", "message": {"content": "hi"}}]}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


class Kept:
    """An observer that keeps what it hears of requests."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def finished(self, record: RequestRecord) -> None:
        self.records.append(record)

    def refused(self, reason: Reason) -> None:
        """Of no interest here."""

    def connections(self, delta: int) -> None:
        """Of no interest here."""


class Place:
    """A replica with HTTP, WebSocket and perhaps TLS, and the proxy before it."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.observer = Kept()
        self.proxy: ProxyServer
        self.gateway: Gateway
        self.address = ("", 0)

    async def chat(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        await request.read()
        return web.json_response(ANSWER)

    async def realtime(self, request: web.Request) -> web.WebSocketResponse:
        self.seen.append(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.data == "leave":
                await socket.close()
            else:
                await socket.send_str(f"echo {message.data}")
        return socket

    async def start(self, settings: dict[str, Any], tls: ssl.SSLContext | None, **endpoint: Any) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/realtime", self.realtime)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = self._runner.addresses[0][1]
        lb = LbSettings.model_validate(settings)
        self.gateway = Gateway(lb, asyncio.get_running_loop())
        self.proxy = ProxyServer(self.gateway, lb, self.observer)
        replica = Endpoint("r", "127.0.0.1", port, tls=tls is not None, models=("m",), **endpoint)
        self.gateway.set_source("static", [replica])
        for _ in range(3):
            self.gateway.observe_probe("r", ProbeResult(ProbeStatus.READY))
        [self.address] = await self.proxy.start("127.0.0.1", 0)

    async def close(self) -> None:
        await self.proxy.close()
        self.gateway.close()
        await self._runner.cleanup()


MakePlace = Callable[..., Awaitable[Place]]


@pytest.fixture
async def make_place() -> AsyncIterator[MakePlace]:
    places: list[Place] = []

    async def make(settings: dict[str, Any], tls: ssl.SSLContext | None = None, **endpoint: Any) -> Place:
        places.append(Place())
        await places[-1].start(settings, tls, **endpoint)
        return places[-1]

    yield make
    for place in places:
        await place.close()


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


async def ask(place: Place, scheme: str = "http", **options: Any) -> tuple[int, Any]:
    url = f"{scheme}://127.0.0.1:{place.address[1]}/v1/chat/completions"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={"model": "m", "messages": []}, **options) as response,
    ):
        return response.status, await response.json()


async def test_clients_are_served_over_https(make_place: MakePlace) -> None:
    place = await make_place({"tls": {"certificate": str(CERTIFICATE), "key": str(KEY)}})
    status, answer = await ask(place, "https", ssl=ssl.create_default_context(cafile=str(CERTIFICATE)))
    assert (status, answer) == (200, ANSWER)
    assert place.seen[0].headers["X-Forwarded-Proto"] == "https"


async def test_clients_without_a_certificate_are_refused_where_one_is_asked_for(make_place: MakePlace) -> None:
    files = {"certificate": str(CERTIFICATE), "key": str(KEY), "client_ca": str(CERTIFICATE)}
    place = await make_place({"tls": files})
    without = ssl.create_default_context(cafile=str(CERTIFICATE))
    with pytest.raises(aiohttp.ClientError):
        await ask(place, "https", ssl=without)
    known = ssl.create_default_context(cafile=str(CERTIFICATE))
    known.load_cert_chain(CERTIFICATE, KEY)
    assert (await ask(place, "https", ssl=known))[0] == 200


@pytest.mark.parametrize(("name", "status"), [(None, 200), ("gpu.internal", 200), ("other.internal", 502)])
async def test_replicas_are_reached_over_https_under_the_name_they_must_have(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch, name: str | None, status: int
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    place = await make_place({}, server_context(), tls_name=name)
    assert (await ask(place))[0] == status


async def test_a_replica_whose_certificate_nobody_vouches_for_is_not_talked_to(make_place: MakePlace) -> None:
    place = await make_place({}, server_context())
    status, answer = await ask(place)
    assert (status, answer["error"]["code"]) == (502, "upstream_connect")
    assert place.seen == []


async def test_a_websocket_is_tunnelled_where_the_policy_allows_it(make_place: MakePlace) -> None:
    place = await make_place({"paths": {"websocket": ["/v1/realtime"]}})
    url = f"http://127.0.0.1:{place.address[1]}/v1/realtime"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        for word in ("one", "x" * 200_000):
            await socket.send_str(word)
            assert (await socket.receive_str()) == f"echo {word}"
        assert place.proxy.requests_in_progress == 1
        await socket.send_str("leave")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    await ended(place)
    assert [record.status for record in place.observer.records] == [101]
    assert place.observer.records[0].outcome is Outcome.OK
    assert place.observer.records[0].bytes_out > 200_000


async def test_a_replica_hears_at_once_when_a_websocket_client_is_gone(make_place: MakePlace) -> None:
    place = await make_place({"paths": {"websocket": ["/v1/realtime"]}})
    url = f"http://127.0.0.1:{place.address[1]}/v1/realtime"
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(url)
        await socket.send_str("one")
        await socket.receive_str()
        assert socket._response.connection is not None
        transport = socket._response.connection.transport
        assert transport is not None
        transport.abort()
        await ended(place)
        await eventually(lambda: place.sockets[0].closed, 1.0)


async def test_elsewhere_an_upgrade_is_a_plain_request(make_place: MakePlace) -> None:
    place = await make_place({"paths": {"allow": ["/v1/realtime"]}})
    url = f"http://127.0.0.1:{place.address[1]}/v1/realtime"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(url)
    assert caught.value.status == 400
    assert "Upgrade" not in place.seen[0].headers if place.seen else True
    assert place.sockets == []


async def ended(place: Place) -> None:
    await eventually(lambda: not place.proxy.requests_in_progress)
