"""The daemon with replicas from Kubernetes: what becomes of requests when the API is gone, and when pods are scaled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from lb.kube import KubeApi
from tests.kubernetes.cluster import ZONES, Cluster
from tests.kubernetes.fault_proxy import FaultProxy, Way
from tests.kubernetes.workloads import DEPLOYMENTS, deployment
from tests.runtimes.balancer import TIDEGATE, Balancer, balancing
from tests.runtimes.processes import Server, free_port, running

HOSTS = [f"127.1.0.{index + 1}" for index in range(len(ZONES))]
"""Addresses of the nodes: a pod with `hostNetwork` has its node's."""
BODY = {"model": "mock-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}


class Traffic:
    """Requests one after the other, by eight clients, and how each of them ended."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self.answers: Counter[int] = Counter()
        self.bad: list[str] = []

    async def client(self) -> None:
        while True:
            status, body = await self._balancer.post("/v1/chat/completions", BODY)
            self.answers[status] += 1
            if status != 200:
                self.bad.append(f"{status} {body[:200]!r}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def traffic(balancer: Balancer) -> AsyncIterator[Traffic]:
    made = Traffic(balancer)
    clients = [asyncio.create_task(made.client()) for _ in range(8)]
    try:
        yield made
    finally:
        for client in clients:
            client.cancel()
        for client in clients:
            with contextlib.suppress(asyncio.CancelledError):
                await client


@pytest.fixture
async def port(cluster: Cluster, api: KubeApi, namespace: str) -> int:
    """Three pods with an address on loopback each, all on this port."""
    port = free_port()
    cluster.create(DEPLOYMENTS.format(namespace), deployment("llm", 3, port=port, grace_s=5, hostNetwork=True))
    for _ in range(100):
        pods = await api.list_all(f"/api/v1/namespaces/{namespace}/pods")
        if sorted(pod["status"].get("podIP", "") for pod in pods.items) == HOSTS:
            return port
        await asyncio.sleep(0.2)
    raise AssertionError([pod["status"] for pod in pods.items])


@asynccontextmanager
async def runtimes(tmp: Path, port: int) -> AsyncIterator[dict[str, Server]]:
    """A simulated runtime where each pod says that it listens."""
    async with AsyncExitStack() as stack:
        servers = {}
        for host in HOSTS:
            command = [TIDEGATE, "mock-runtime", "--host", host, "--port", str(port), "--speed", "20", "--drain", "5s"]
            servers[host] = await stack.enter_async_context(running(host, command, tmp / f"{host}.log", port))
        yield servers


async def states(balancer: Balancer) -> dict[str, str]:
    """By identity: two pods may have had the same address."""
    return {one["id"]: one["state"] for one in await balancer.replicas()}


async def until_serving(balancer: Balancer, count: int, within_s: float = 60.0) -> None:
    """Until these are all that there are, and take requests."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        found = await states(balancer)
        if len(found) == count and all(state in ("ready", "warming") for state in found.values()):
            return
        assert asyncio.get_running_loop().time() < deadline, json.dumps(await balancer.replicas(), indent=1)
        await asyncio.sleep(0.1)


async def until_one_is_down(balancer: Balancer) -> None:
    for _ in range(300):
        if any(state not in ("ready", "warming") for state in (await states(balancer)).values()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(await states(balancer))


async def test_j09_the_data_plane_does_not_notice_that_the_api_is_gone(
    cluster: Cluster, api: KubeApi, proxy: FaultProxy, namespace: str, port: int, tmp_path: Path
) -> None:
    source = {"kubeconfig": str(cluster.kubeconfig("admin", url=proxy.url)), "namespace": namespace, "pods": "app=llm"}
    async with (
        runtimes(tmp_path, port) as servers,
        balancing(tmp_path, lb={"kubernetes": [{**source, "watch_idle": "2s"}]}) as balancer,
    ):
        await until_serving(balancer, 3)
        async with traffic(balancer) as load:
            await asyncio.sleep(2)
            for way in (Way.CUT, Way.HANG):
                proxy.fail(way)
                await asyncio.sleep(5)
            before = sum(load.answers.values())
            # Nobody can say now that this replica is gone; the balancer finds out by itself (F12).
            servers[HOSTS[0]].signal(signal.SIGTERM)
            await until_one_is_down(balancer)
            await asyncio.sleep(2)
            assert sum(load.answers.values()) > before + 50
            assert len(await states(balancer)) == 3, "what was seen last stays"

            proxy.fail(Way.PASS)
            await api.patch(f"{DEPLOYMENTS.format(namespace)}/llm/scale", {"spec": {"replicas": 2}})
            async with asyncio.timeout(60):
                while len(await states(balancer)) != 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            await asyncio.sleep(1)
    print(f"{load.answers} answers")
    assert load.bad == []


async def test_scaling_down_and_up_loses_no_request(
    cluster: Cluster, api: KubeApi, namespace: str, port: int, tmp_path: Path
) -> None:
    source = {"kubeconfig": str(cluster.kubeconfig("admin")), "namespace": namespace, "pods": "app=llm"}
    async with runtimes(tmp_path, port), balancing(tmp_path, lb={"kubernetes": [source]}) as balancer:
        await until_serving(balancer, 3)
        async with traffic(balancer) as load:
            for replicas in (1, 3, 2):
                await api.patch(f"{DEPLOYMENTS.format(namespace)}/llm/scale", {"spec": {"replicas": replicas}})
                await until_serving(balancer, replicas)
                await asyncio.sleep(1)
    print(f"{load.answers} answers")
    assert load.bad == []
