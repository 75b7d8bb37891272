"""Triton, native, behind the balancer."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.runtimes.balancer import Balancer, balancing
from tests.runtimes.processes import Server, eventually
from tests.runtimes.servers import TritonPorts, triton

NEEDS = ("triton",)
INFER = "/v2/models/double/infer"
WORDS = "/v2/models/words/generate_stream"


def infer(wait_s: float = 0.0) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]},
            {"name": "wait", "datatype": "FP32", "shape": [1], "data": [wait_s]},
        ]
    }


@asynccontextmanager
async def started(tmp: Path, *extra: str, ready: bool = True) -> AsyncIterator[Server]:
    """A server whose metrics are where the balancer is told that they are."""
    ports = TritonPorts()
    async with triton(tmp, ports, *extra) as server:
        server.metrics = f"http://127.0.0.1:{ports.metrics}/metrics"
        if ready:
            await server.answers("/v2/models/words/ready", within_s=60)
        yield server


async def test_infer_and_stream(tmp_path: Path) -> None:
    async with started(tmp_path) as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server, runtime="triton")
        status, body = await balancer.post(INFER, infer())
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [2.0, 4.0])
        async with balancer.open(WORDS, {"count": 5}) as response:
            text = await response.read()
        assert text.count(b"data: ") == 5
        replica = await balancer.replica(server)
        assert set(replica["models"]) == {"double", "words"}


async def test_broken_json_is_the_clients_fault_although_it_says_500(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        before = [replica["routed_total"] for replica in await balancer.replicas()]
        for _ in range(2):
            status, body = await balancer.post(INFER, b'{"inputs": [')
            assert status == 500
            assert b"failed to parse the request JSON buffer" in body
        # Not tried again on the other: what is wrong is the request.
        after = [replica["routed_total"] for replica in await balancer.replicas()]
        assert sum(after) - sum(before) == 2
        for replica in await balancer.replicas():
            assert replica["state"] in ("ready", "warming")
            assert replica["ejected_until_s"] is None


async def test_a_client_with_broken_json_does_not_take_the_fleet_out(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        for _ in range(30):
            assert (await balancer.post(INFER, b'{"inputs": ['))[0] == 500
        for replica in await balancer.replicas():
            assert replica["ejected_until_s"] is None
        assert (await balancer.post(INFER, infer()))[0] == 200


async def test_a_200_that_is_an_error_passes_unchanged(tmp_path: Path) -> None:
    async with started(tmp_path) as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        for _ in range(10):
            status, body = await balancer.post("/v2/models/words/generate", {"count": 3})
            assert status == 200
            assert b"generate expects model to produce exactly 1 response" in body
        assert (await balancer.replica(server))["state"] in ("ready", "warming")


async def test_an_abandoned_infer_runs_on_and_keeps_counting(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        for _ in range(4):
            await balancer.post(INFER, infer(0.2))
        leaving = asyncio.create_task(balancer.post(INFER, infer(4.0)))
        await asyncio.sleep(0.5)
        busy = next(replica for replica in await balancer.replicas() if replica["in_flight"] == 1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        # It still sleeps: one more there would wait for seconds.
        direct = asyncio.create_task(_direct(busy["url"]))
        await asyncio.sleep(0.3)
        assert not direct.done()
        direct.cancel()
        await asyncio.gather(direct, return_exceptions=True)
        assert loop.time() - begun < 3.0


async def _direct(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(url + INFER, json=infer()) as response:
        await response.read()


async def test_its_queue_is_read_and_believed(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        async with aiohttp.ClientSession() as stranger:
            tasks = [asyncio.create_task(_ask(stranger, one.url + INFER, 0.5)) for _ in range(12)]
            replica = await balancer.until(one, lambda r: r["foreign"] >= 4, "its queue is seen and counted")
            assert replica["in_flight"] == 0
            before = (await balancer.replica(one))["routed_total"]
            for _ in range(4):
                assert (await balancer.post(INFER, infer()))[0] == 200
            assert (await balancer.replica(one))["routed_total"] == before
            await asyncio.gather(*tasks)


async def _ask(client: aiohttp.ClientSession, url: str, wait_s: float) -> None:
    async with client.post(url, json=infer(wait_s)) as response:
        await response.read()


async def test_many_at_once_are_all_answered(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        answers = await asyncio.gather(*(balancer.post(INFER, infer(0.1)) for _ in range(40)))
        assert [status for status, _ in answers] == [200] * 40
        routed = [replica["routed_total"] for replica in await balancer.replicas()]
        assert min(routed) >= 10


async def test_ready_is_what_the_model_says(tmp_path: Path) -> None:
    """The server says ready before any model is there; only the model's own page is true."""
    async with started(tmp_path, "--model-control-mode=explicit", ready=False) as server:
        await server.answers("/v2/health/ready", within_s=60)
        lb = {"backends": [{"url": server.url, "metrics_url": server.metrics, "models": ["words"]}]}
        async with balancing(tmp_path, server, lb=lb) as balancer:
            await balancer.until(server, lambda one: one["runtime"] == "triton", "known before it is ready")
            await asyncio.sleep(3)
            assert (await balancer.replica(server))["state"] not in ("ready", "warming")
            asking = asyncio.create_task(_stream(balancer, 2))
            load = f"{server.url}/v2/repository/models/words/load"
            async with aiohttp.ClientSession() as client, client.post(load, json={}) as response:
                assert response.status == 200
            await balancer.until(server, lambda one: one["state"] in ("ready", "warming"), "ready when loaded")
            assert (await asking).count(b"data: ") == 2


async def _stream(balancer: Balancer, count: int) -> bytes:
    async with balancer.open(WORDS, {"count": count}) as response:
        found: bytes = await response.read()
        return found


async def test_sigterm_finishes_what_runs(tmp_path: Path) -> None:
    """It finishes its requests; for seconds it takes new connections and closes them without an answer."""
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        streams = [asyncio.create_task(_stream(balancer, 30)) for _ in range(2)]
        await asyncio.sleep(1)
        one.signal(signal.SIGTERM)
        statuses = []
        for _ in range(60):
            statuses.append((await balancer.post(INFER, infer()))[0])
            await asyncio.sleep(0.05)
        assert statuses == [200] * 60
        for text in await asyncio.gather(*streams):
            assert text.count(b"data: ") == 30
        assert await one.ended(40) == 0


async def test_sigkill_loses_nothing_but_what_was_on_it(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        asking = [asyncio.create_task(balancer.post(INFER, infer(1.0))) for _ in range(2)]

        async def one_each() -> bool:
            return all(replica["in_flight"] == 1 for replica in await balancer.replicas())

        await eventually(one_each, within_s=5.0, what="one request on each")
        one.signal(signal.SIGKILL)
        statuses = [(await balancer.post(INFER, infer()))[0] for _ in range(20)]
        assert statuses == [200] * 20
        # The one that was on it had brought no byte yet, so it was tried again elsewhere.
        assert [status for status, _ in await asyncio.gather(*asking)] == [200, 200]
