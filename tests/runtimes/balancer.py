"""The real balancer as a process, and what its admin API says."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.runtimes.processes import Server, eventually, free_port, running

TIDEGATE = Path(sys.executable).with_name("tidegate")


class Balancer:
    """A started `tidegate`, with the client that tests use."""

    def __init__(self, server: Server, admin_port: int, client: aiohttp.ClientSession) -> None:
        self.url = server.url
        self.server = server
        self.admin = f"http://127.0.0.1:{admin_port}"
        self.client = client

    async def replicas(self) -> list[dict[str, Any]]:
        async with self.client.get(f"{self.admin}/v1/replicas") as response:
            assert response.status == 200
            view: dict[str, Any] = await response.json()
            return list(view["replicas"])

    async def view(self) -> dict[str, Any]:
        async with self.client.get(f"{self.admin}/v1/replicas") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def replica(self, server: Server) -> dict[str, Any]:
        """What is known of the replica that is this server."""
        return next(one for one in await self.replicas() if one["url"] == server.url)

    async def until(
        self, server: Server, holds: Callable[[dict[str, Any]], object], what: str, *, within_s: float = 30.0
    ) -> dict[str, Any]:
        """The replica as soon as that holds of it. Runtimes compute on the processor here, which is slow."""
        found: list[dict[str, Any]] = []

        async def look() -> object:
            found[:] = [await self.replica(server)]
            return holds(found[0])

        await eventually(look, within_s=within_s, what=f"{server.name}: {what}", more=lambda: str(found))
        return found[0]

    async def until_up(self, *servers: Server, runtime: str | None = None) -> None:
        """All of these take requests."""
        for server in servers:
            await self.until(server, lambda one: one["state"] in ("ready", "warming"), "up", within_s=30.0)
            if runtime is not None:
                assert (await self.replica(server))["runtime"] == runtime

    async def post(self, path: str, body: Any, **options: Any) -> tuple[int, bytes]:
        """Status and body of one unary request; `body` is JSON unless it is bytes."""
        async with self.client.post(self.url + path, **_content(body), **options) as response:
            return response.status, await response.read()

    def open(self, path: str, body: Any) -> Any:
        """A request whose answer is read piece by piece, as an async context manager."""
        return self.client.post(self.url + path, **_content(body))


def _content(body: Any) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {"data": raw, "headers": {"Content-Type": "application/json"}}


@asynccontextmanager
async def balancing(
    tmp: Path, *servers: Server, lb: dict[str, Any] | None = None, **others: Any
) -> AsyncIterator[Balancer]:
    """A balancer in front of these. `lb` adds to the policy, `others` are its further sections; a server's `metrics` is
    where its metrics are."""
    port, admin_port = free_port(), free_port()
    backends = []
    for server in servers:
        backend = {"url": server.url}
        if server.metrics is not None:
            backend["metrics_url"] = server.metrics
        backends.append(backend)
    policy = tmp / f"policy-{port}.yaml"
    # YAML takes JSON.
    policy.write_text(
        json.dumps(
            {
                "lb": {
                    "listen": f"127.0.0.1:{port}",
                    "admin": {"listen": f"127.0.0.1:{admin_port}"},
                    "backends": backends,
                    "log": {"access": "all", "level": "debug"},
                    "timeouts": {"shutdown": "5s"},
                    **(lb or {}),
                },
                **others,
            }
        )
    )
    command = [TIDEGATE, "run", "--policy", policy]
    async with running("tidegate", command, tmp / f"tidegate-{port}.log", port) as process:
        await process.answers("/readyz", within_s=20.0, port=admin_port)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as client:
            yield Balancer(process, admin_port, client)
