"""A proxy before the API server that fails as a test wants, and writes down every call."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

import aiohttp
from aiohttp import web

from tests.kubernetes.cluster import Cluster

_DROPPED = frozenset({"transfer-encoding", "content-length", "connection", "host"})


class Way(StrEnum):
    """What becomes of calls and of watches that are open."""

    PASS = "pass"
    CUT = "cut"
    """Connections are reset."""
    HANG = "hang"
    """Bytes are taken and none come back, as if the network had swallowed them."""


@dataclass(frozen=True)
class Call:
    at: float
    """Monotonic seconds."""
    method: str
    path: str
    query: dict[str, str]

    @property
    def kind(self) -> str:
        return "watch" if self.query.get("watch") == "true" else self.method.lower()


@dataclass
class Answer:
    """Given instead of asking the API server."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


class FaultProxy:
    """`async with FaultProxy(cluster) as proxy`; then `fail`, or set `answer` and `answers`, at any time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.way = Way.PASS
        self.answer: Answer | None = None
        self.answers: list[Answer] = []
        """For the next calls, one each, before `answer`."""
        self.refused: str | None = None
        """Paths with this end get a 403."""
        self.calls: list[Call] = []
        self.url = ""
        self._open: set[asyncio.Transport] = set()
        self._moving = asyncio.Event()
        self._moving.set()

    async def __aenter__(self) -> FaultProxy:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(self._cluster.ca)), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        directory = self._cluster.directory
        context.load_cert_chain(directory / "server.crt", directory / "server.key")
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def fail(self, way: Way) -> None:
        """From now on, also for what is open. `PASS` makes it well again; what hung goes on where it stopped."""
        self.way = way
        if way is Way.HANG:
            self._moving.clear()
        else:
            self._moving.set()
        if way is Way.CUT:
            for transport in list(self._open):
                transport.abort()

    def forget(self) -> None:
        """What is open now hangs for ever."""
        self._moving = asyncio.Event()

    def spacing_s(self, first: int = 0) -> list[float]:
        """Seconds between calls, from the call `first` on."""
        return [later.at - earlier.at for earlier, later in pairwise(self.calls[first:])]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(Call(time.monotonic(), request.method, request.path, dict(request.query)))
        await self._gate(request)
        scripted = self.answers.pop(0) if self.answers else self.answer
        if self.refused is not None and request.path.endswith(self.refused):
            scripted = Answer(403)
        if scripted is not None:
            status = {"kind": "Status", "reason": "Scripted", "message": "as the test wants", "code": scripted.status}
            return web.json_response(status, status=scripted.status, headers=scripted.headers)
        transport = request.transport
        if transport is None:  # the client has gone meanwhile
            return web.Response(status=502)
        self._open.add(transport)
        try:
            return await self._forward(request)
        finally:
            self._open.discard(transport)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _DROPPED}
        headers["Accept-Encoding"] = "identity"
        try:
            upstream = await self._session.request(
                request.method,
                f"{self._cluster.url}{request.raw_path}",
                headers=headers,
                data=await request.read(),
            )
        except aiohttp.ClientError:
            return self._abort(request)
        async with upstream:
            await self._gate(request)
            kept = {key: value for key, value in upstream.headers.items() if key.lower() not in _DROPPED}
            response = web.StreamResponse(status=upstream.status, headers=kept)
            await response.prepare(request)
            try:
                async for data in upstream.content.iter_any():
                    await self._gate(request)
                    await response.write(data)
            except aiohttp.ClientError:
                return self._abort(request)
            return response

    async def _gate(self, request: web.Request) -> None:
        await self._moving.wait()
        if self.way is Way.CUT:
            self._abort(request)

    def _abort(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)
