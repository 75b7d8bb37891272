"""MLServer (KServe's v2 protocol) behind the balancer."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.runtimes.balancer import balancing
from tests.runtimes.processes import Server, free_port
from tests.runtimes.servers import mlserver

NEEDS = ("mlserver",)
INFER = "/v2/models/double/infer"


def infer(wait_s: float = 0.0) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]},
            {"name": "wait", "datatype": "FP32", "shape": [1], "data": [wait_s]},
        ]
    }


WORDS = {"inputs": [{"name": "count", "datatype": "INT32", "shape": [1], "data": [20]}]}


@asynccontextmanager
async def started(tmp: Path, *, ready: bool = True) -> AsyncIterator[Server]:
    metrics_port = free_port()
    async with mlserver(tmp, metrics_port) as server:
        server.metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        if ready:
            await server.answers("/v2/health/ready", within_s=60)
        yield server


async def test_infer_and_stream(tmp_path: Path) -> None:
    async with started(tmp_path) as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server, runtime="mlserver")
        status, body = await balancer.post(INFER, infer())
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [2.0, 4.0])
        async with balancer.open("/v2/models/words/generate_stream", WORDS) as response:
            assert (await response.read()).count(b"data: ") == 20
        assert set((await balancer.replica(server))["models"]) == {"double", "words"}


async def test_it_is_alive_while_it_loads_and_no_target(tmp_path: Path) -> None:
    async with started(tmp_path, ready=False) as server:
        await server.answers("/v2/health/ready", within_s=60, status=400)
        async with balancing(tmp_path, server) as balancer:
            seen = await balancer.until(server, lambda one: one["runtime"] == "mlserver", "known while it loads")
            assert seen["ejected_until_s"] is None
            status, _ = await balancer.post(INFER, infer())
            assert status == 200
            assert (await balancer.replica(server))["state"] in ("ready", "warming")


async def test_load_of_others_is_read_and_believed(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        async with aiohttp.ClientSession() as stranger:
            tasks = [asyncio.create_task(_ask(stranger, one.url + INFER, 4.0)) for _ in range(5)]
            await balancer.until(one, lambda r: r["foreign"] >= 5, "load of others is counted")
            before = (await balancer.replica(one))["routed_total"]
            for _ in range(4):
                assert (await balancer.post(INFER, infer()))[0] == 200
            assert (await balancer.replica(one))["routed_total"] == before
            await asyncio.gather(*tasks)
            await balancer.until(one, lambda r: r["foreign"] == 0, "and forgotten when it is gone")


async def _ask(client: aiohttp.ClientSession, url: str, wait_s: float) -> None:
    async with client.post(url, json=infer(wait_s)) as response:
        await response.read()


async def test_errors_of_clients_pass_through(tmp_path: Path) -> None:
    async with started(tmp_path) as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        for _ in range(8):
            assert (await balancer.post(INFER, b'{"inputs": ['))[0] == 422
        assert (await balancer.replica(server))["consecutive_faults"] == 0
        assert (await balancer.post(INFER, infer()))[0] == 200


async def test_sigterm_and_sigkill(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        asking = [asyncio.create_task(balancer.post(INFER, infer(2.0))) for _ in range(4)]
        await asyncio.sleep(0.5)
        one.signal(signal.SIGTERM)
        statuses = []
        for _ in range(40):
            statuses.append((await balancer.post(INFER, infer()))[0])
            await asyncio.sleep(0.05)
        assert statuses == [200] * 40
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 4
        await one.ended(20)
        one.restart()
        await balancer.until(one, lambda r: r["state"] in ("ready", "warming"), "it is back", within_s=30.0)
        one.signal(signal.SIGKILL)
        assert [(await balancer.post(INFER, infer()))[0] for _ in range(20)] == [200] * 20
