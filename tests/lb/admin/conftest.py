"""A running admin server over a real gateway, and a client that can send anything."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from lb.admin import AdminHooks, AdminServer
from lb.admin.guard import READ_S
from lb.endpoint import endpoint_from_url
from lb.feeds.runtime_feeds import RuntimeFeeds
from lb.gateway import Gateway
from lb.metrics import LbMetrics, Reload
from lb.request import RequestInfo, SurfaceName
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import LbSettings

TOKEN = "admin-token-0123456789"


@dataclass
class Admin:
    """The server under test and what stands behind it."""

    server: AdminServer
    gateway: Gateway
    metrics: LbMetrics
    session: aiohttp.ClientSession
    readiness: str = ""
    reload_result: Reload = field(default_factory=lambda: Reload(ok=True, at=1_800_000_000.0, policy_hash="abc"))
    reloads: int = 0
    feeds: RuntimeFeeds | None = None

    @property
    def base(self) -> str:
        return f"http://{self.server.address}"

    async def call(
        self, method: str, path: str, body: Any = None, *, data: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and parsed JSON (or text) of one request. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            data = json.dumps(body).encode()
            named.setdefault("Content-Type", "application/json")
        url = self.base + path
        async with self.session.request(
            method, aiohttp.client.URL(url, encoded=True), data=data, headers=named
        ) as reply:
            raw = await reply.read()
            is_json = reply.content_type == "application/json"
            return reply.status, json.loads(raw) if is_json and raw else raw.decode()

    def route_one(self, request_id: str) -> str:
        """Send one request through the balancer; returns the replica it went to."""
        info = RequestInfo(request_id, SurfaceName.CHAT, "llama", prompt_bytes=400, max_tokens=50)
        decision = self.gateway.balancer.offer(info, self.gateway.now())
        return decision.ticket.replica.id  # type: ignore[union-attr]


MakeAdmin = Callable[..., Awaitable[Admin]]


@pytest.fixture
async def make_admin() -> AsyncIterator[MakeAdmin]:
    made: list[Admin] = []

    async def make(
        *,
        token: str | None = None,
        policy: bool = True,
        allowed_hosts: tuple[str, ...] = (),
        with_feeds: Callable[[Gateway], RuntimeFeeds] | None = None,
        head_s: float = READ_S,
    ) -> Admin:
        loop = asyncio.get_running_loop()
        gateway = Gateway(LbSettings(), loop, random.Random(1))
        static = endpoint_from_url("http://127.0.0.1:8001", models=("llama",), runtime="vllm")
        gateway.set_source("static", [static])
        for _ in range(3):
            gateway.observe_probe(static.id, ProbeResult(ProbeStatus.READY, models=("llama",)))
        metrics = LbMetrics(CollectorRegistry(), version="1.2.3", now=loop.time)
        metrics.watch_gateway(gateway)

        async def reload() -> Reload:
            admin.reloads += 1
            metrics.reloaded(admin.reload_result)
            return admin.reload_result

        feeds = with_feeds(gateway) if with_feeds is not None else None
        hooks = AdminHooks(
            version="1.2.3",
            readiness=lambda: admin.readiness,
            reload=reload if policy else None,
            details=lambda: {"sources": {"static": {"endpoints": 1}}},
            allowed_hosts=allowed_hosts,
            feeds=feeds,
        )
        server = AdminServer(gateway, metrics, hooks, listen="127.0.0.1:0", token=token, head_s=head_s)
        await server.start()
        admin = Admin(server, gateway, metrics, aiohttp.ClientSession(), feeds=feeds)
        made.append(admin)
        return admin

    yield make
    for admin in made:
        await admin.session.close()
        await admin.server.stop()
        admin.gateway.close()


@pytest.fixture
async def admin(make_admin: MakeAdmin) -> Admin:
    return await make_admin()
