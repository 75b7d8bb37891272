"""A replica on a real socket that answers, hangs, lies or vanishes as a test says; and a sink that remembers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from lb.endpoint import Endpoint, endpoint_from_url
from lb.feeds.runtime_feeds import RuntimeFeeds
from lb.runtime import ProbeResult, ProbeStatus, RuntimeLoad
from lb.settings import HealthSettings

MODELS = {"data": [{"id": "tiny", "owned_by": "vllm"}]}
METRICS = "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n"
FAST = HealthSettings(interval_s=0.05, timeout_s=0.3, scrape_interval_s=0.05, scrape_stale=3)
"""Intervals short enough for tests and long enough that a loaded machine keeps up."""

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeReplica:
    """Answers by path: a status, a (status, body) pair, text, a JSON document, or a coroutine function."""

    answers: dict[str, Any] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    authorizations: dict[str, str | None] = field(default_factory=dict)
    running: int = 0
    most_at_once: int = 0
    port: int = 0
    _runner: web.AppRunner | None = None
    _site: web.TCPSite | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await self._site.start()
        self.port = self._site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def close_port(self) -> None:
        """Take no more connections, and serve those that are there."""
        assert self._site is not None
        self._site._server.close()  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.seen.append(path)
        self.authorizations[path] = request.headers.get("Authorization")
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            answer = self.answers.get(path, 404)
            if callable(answer):
                return await answer(request)
            if isinstance(answer, int):
                return web.Response(status=answer)
            if isinstance(answer, tuple):
                return web.Response(status=answer[0], text=answer[1])
            if isinstance(answer, str):
                return web.Response(text=answer)
            return web.json_response(answer)
        finally:
            self.running -= 1

    def endpoint(self, **known: object) -> Endpoint:
        return endpoint_from_url(f"http://127.0.0.1:{self.port}", **known)


def vllm(**answers: Any) -> FakeReplica:
    """A replica that looks like vLLM. `answers` are by path without its slash."""
    base: dict[str, Any] = {"/v1/models": MODELS, "/health": 200, "/metrics": METRICS}
    return FakeReplica(base | {f"/{path}": answer for path, answer in answers.items()})


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


@dataclass
class Sink:
    """What the gateway would have been told."""

    endpoints_now: tuple[Endpoint, ...] = ()
    probes: list[tuple[str, ProbeResult]] = field(default_factory=list)
    loads: list[tuple[str, RuntimeLoad]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    _callbacks: list[Callable[[tuple[Endpoint, ...]], None]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def endpoints(self) -> tuple[Endpoint, ...]:
        return self.endpoints_now

    def on_endpoints(self, callback: Callable[[tuple[Endpoint, ...]], None]) -> None:
        self._callbacks.append(callback)
        callback(self.endpoints_now)

    def set(self, *endpoints: Endpoint) -> None:
        self.endpoints_now = endpoints
        for callback in self._callbacks:
            callback(endpoints)

    def observe_probe(self, replica_id: str, probe: ProbeResult) -> None:
        self.probes.append((replica_id, probe))
        self._changed.set()

    def observe_load(self, replica_id: str, load: RuntimeLoad) -> None:
        self.loads.append((replica_id, load))
        self._changed.set()

    def observe_load_failed(self, replica_id: str, reason: str) -> None:
        self.failures.append((replica_id, reason))
        self._changed.set()

    async def until(self, done: Callable[[], bool], *, within_s: float = 10.0) -> None:
        """Wait for observations that make `done` true."""
        async with asyncio.timeout(within_s):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def until_probe(self, status: ProbeStatus, reason: str = "", *, after: int = 0) -> ProbeResult:
        """The first probe of that kind, counted from the `after`th."""

        def hits() -> list[ProbeResult]:
            return [p for _, p in self.probes[after:] if p.status is status and reason in p.reason]

        await self.until(lambda: bool(hits()))
        return hits()[0]

    async def until_load(self, done: Callable[[RuntimeLoad], bool] = lambda load: True) -> RuntimeLoad:
        def hits() -> list[RuntimeLoad]:
            return [load for _, load in self.loads if done(load)]

        await self.until(lambda: bool(hits()))
        return hits()[0]


@asynccontextmanager
async def feeding(
    *replicas: FakeReplica,
    settings: HealthSettings = FAST,
    authorization: str | None = None,
    **known: object,
) -> AsyncIterator[tuple[Sink, RuntimeFeeds]]:
    """Started feeds on started replicas."""
    sink = Sink()
    for replica in replicas:
        await replica.start()
    sink.set(*(replica.endpoint(**known) for replica in replicas))
    feeds = RuntimeFeeds(sink, settings, rng=random.Random(7), authorization=authorization)
    await feeds.start()
    try:
        yield sink, feeds
    finally:
        await feeds.stop()
        for replica in replicas:
            await replica.stop()
