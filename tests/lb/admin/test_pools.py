"""Pools on the admin API: what the process says of them, and moments in every way of writing them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from lb.admin import AdminHooks, AdminServer
from lb.gateway import Gateway
from lb.metrics import LbMetrics
from lb.settings import LbSettings

DECISION = {"pool": "chat", "at": 1_772_370_300.0, "sentence": "chat: hold 2; floor", "record": {"desired": 2}}


class Pools:
    """A server whose process has one pool."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float | None]] = []
        self.base = ""

    async def explain(self, pool: str, at: float | None) -> dict[str, object] | None:
        self.asked.append((pool, at))
        return {**DECISION} if pool == "chat" else None

    async def get(self, path: str) -> tuple[int, Any]:
        url = aiohttp.client.URL(self.base + path, encoded=True)
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return reply.status, await reply.json()


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    loop = asyncio.get_running_loop()
    gateway, one = Gateway(LbSettings(), loop, random.Random(1)), Pools()
    hooks = AdminHooks(
        version="1", readiness=lambda: "", pools=lambda: [{**DECISION, "replicas": []}], explain_pool=one.explain
    )
    metrics = LbMetrics(CollectorRegistry(), version="1", now=loop.time)
    server = AdminServer(gateway, metrics, hooks, listen="127.0.0.1:0")
    await server.start()
    one.base = f"http://{server.address}"
    yield one
    await server.stop()
    gateway.close()


async def test_all_pools(pools: Pools) -> None:
    assert await pools.get("/v1/pools") == (200, {"pools": [{**DECISION, "replicas": []}]})


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("", None),
        ("?at=1772370300", 1_772_370_300.0),
        ("?at=1772370300.5", 1_772_370_300.5),
        ("?at=2026-03-01T13:05:00Z", 1_772_370_300.0),
        ("?at=2026-03-01T14:05:00%2B01:00", 1_772_370_300.0),
        ("?at=2026-03-01T14:05:00+01:00", 1_772_370_300.0),
    ],
)
async def test_one_pool_at_a_moment(pools: Pools, query: str, at: float | None) -> None:
    assert await pools.get("/v1/pools/chat" + query) == (200, DECISION)
    assert pools.asked == [("chat", at)]


@pytest.mark.parametrize("at", ["", "yesterday", "2026-03-01T14:05:00", "nan", "-1e999", "1e5", "%00"])
async def test_what_is_no_moment_is_refused_with_what_would_be(pools: Pools, at: str) -> None:
    status, answer = await pools.get(f"/v1/pools/chat?at={at}")
    assert status == 422
    assert "RFC 3339" in answer["error"]["message"]
    assert pools.asked == []


async def test_a_pool_that_nobody_knows(pools: Pools) -> None:
    status, answer = await pools.get("/v1/pools/other")
    assert (status, answer["error"]["code"]) == (404, "unknown_pool")
