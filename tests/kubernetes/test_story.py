"""The whole of it: demand rises, nodes come before they are needed, pods get ready, requests flow; demand falls,
replicas drain, pods go, their nodes are given back; and no request is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.actuators.kubernetes.marks import DRAINING
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.karpenter import NODE_POOLS, node_pool, pool_is_ready
from tests.kubernetes.workloads import DEPLOYMENTS, deployment
from tests.runtimes.balancer import TIDEGATE, Balancer, balancing
from tests.runtimes.processes import Server, free_port

POOL = "chat"
MOST = 3
BODY = {"model": "mock-model", "max_tokens": 60, "stream": True}
PRIORITY = {"metadata": {"name": "tidegate-placeholder"}, "value": -10, "preemptionPolicy": "Never"}


class Kubelets:
    """A simulated runtime for each pod that has an address; killed the moment its pod is told to end."""

    def __init__(self, cluster: Cluster, namespace: str, port: int, folder: Path) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3Dllm"
        self._port = port
        self._folder = folder
        self.servers: dict[str, Server] = {}
        self.marked: set[str] = set()
        """Pods that were marked as draining before they ended."""
        self.ended: list[str] = []

    async def run(self) -> None:
        while True:
            status, listed = await asyncio.to_thread(self._cluster.call, "GET", self._path)
            if status == 200:
                self._follow({one["metadata"]["name"]: one for one in listed["items"]})
            await asyncio.sleep(0.05)

    def _follow(self, pods: dict[str, dict[str, Any]]) -> None:
        for name, pod in pods.items():
            if DRAINING in pod["metadata"].get("annotations", {}):
                self.marked.add(name)
            address = pod["status"].get("podIP")
            if address and name not in self.servers and "deletionTimestamp" not in pod["metadata"]:
                command = [TIDEGATE, "mock-runtime", "--host", address, "--port", str(self._port)]
                self.servers[name] = Server(name, command, self._folder / f"{name}.log", {}, self._port)
        for name in list(self.servers):
            if name not in pods or "deletionTimestamp" in pods[name]["metadata"]:
                # Without mercy: whoever still has a request here has lost it.
                self.servers.pop(name).signal(signal.SIGKILL)
                self.ended.append(name)

    def stop(self) -> None:
        for server in self.servers.values():
            server.kill()


class Clients:
    """Streams at a rate, each read to its end, whatever comes of the others."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self.per_s = 0.0
        self.ends: Counter[str] = Counter()
        self._asked = 0
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            if not self.per_s:
                await asyncio.sleep(0.05)
                continue
            task = asyncio.create_task(self._one())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await asyncio.sleep(1.0 / self.per_s)

    async def _one(self) -> None:
        self._asked += 1
        body = {**BODY, "messages": [{"role": "user", "content": f"{self._asked} is my number"}]}
        try:
            async with self._balancer.open("/v1/chat/completions", body) as response:
                text = (await response.read()).decode()
                whole = response.status == 200 and text.rstrip().endswith("data: [DONE]") and "error" not in text
                self.ends["whole" if whole else f"{response.status} {text[-300:]}"] += 1
        except Exception as error:
            self.ends[repr(error)] += 1

    async def finish(self) -> None:
        self.per_s = 0.0
        while self._running:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture
def stage(karpenter: Cluster) -> AsyncIterator[str]:
    """A namespace there whose pods have addresses on loopback, and a NodePool that gives empty nodes back quickly."""
    karpenter.children.pop("kwok").kill()
    karpenter.start_kwok("127.2.0.1/16")
    karpenter.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", PRIORITY)
    karpenter.create(NODE_POOLS, node_pool("story", gpus=8 * (MOST + 1), consolidate_after="3s"))
    karpenter.eventually(lambda: pool_is_ready(karpenter, "story"), "the NodePool", 20)
    namespace = karpenter.add_namespace()
    yield namespace  # type: ignore[misc]
    karpenter.remove_namespace(namespace)
    karpenter.call("DELETE", f"{NODE_POOLS}/story")
    karpenter.children.pop("kwok").kill()
    karpenter.start_kwok()


def scaling(cluster: Cluster, namespace: str) -> dict[str, Any]:
    rule = {"signal": "output_tokens", "above": 500, "duration": "2s", "step": 1.0}
    actuator = {
        "type": "kubernetes",
        "kubeconfig": str(cluster.kubeconfig("admin")),
        "namespace": namespace,
        "workloads": [{"name": "llm"}],
        "nodes": {"type": "placeholder", "deployment": "ahead", "headroom": 1},
    }
    pool = {
        "name": POOL, "mode": "own", "min_replicas": 1, "max_replicas": MOST, "rules": [rule],
        "predictive": {"enabled": False}, "start": {"p50": "5s", "p95": "10s"}, "human": "0s",
        "down": {"hold": "5s", "payback": "0s", "drain": "60s"}, "kinds": [{"gpus": 8}], "actuator": actuator,
    }  # fmt: skip
    return {"interval": "1s", "pools": [pool]}


@pytest.mark.timeout(300)
async def test_demand_rises_and_falls_and_no_request_is_lost(karpenter: Cluster, stage: str, tmp_path: Path) -> None:
    port = free_port()
    template = {"annotations": {"test/exit-after": "0s"}, "nodeSelector": {"karpenter.sh/nodepool": "story"}}
    karpenter.create(DEPLOYMENTS.format(stage), deployment("llm", 1, gpus=8, port=port, **template))
    kubelets = Kubelets(karpenter, stage, port, tmp_path)
    source = {"kubeconfig": str(karpenter.kubeconfig("admin")), "namespace": stage, "pods": "app=llm"}
    most_nodes = 0

    def nodes() -> int:
        nonlocal most_nodes
        listed = karpenter.call("GET", "/api/v1/nodes?labelSelector=karpenter.sh%2Fnodepool%3Dstory")[1]["items"]
        found = sum("deletionTimestamp" not in one["metadata"] for one in listed)
        most_nodes = max(most_nodes, found)
        return found

    def replicas() -> int:
        found: int = karpenter.call("GET", f"{DEPLOYMENTS.format(stage)}/llm")[1]["status"].get("readyReplicas", 0)
        return found

    async def until(holds: Any, what: str, within_s: float) -> float:
        began = time.monotonic()
        while not await asyncio.to_thread(holds):
            assert time.monotonic() - began < within_s, (
                f"{what}: {replicas()} replicas, {nodes()} nodes, {clients.ends}"
            )
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    tasks = [asyncio.create_task(kubelets.run())]
    try:
        await asyncio.to_thread(karpenter.eventually, lambda: bool(kubelets.servers), "the first runtime", 40)
        async with balancing(
            tmp_path, lb={"kubernetes": [source], "log": {}}, scaling=scaling(karpenter, stage)
        ) as balancer:
            clients = Clients(balancer)
            while not any(one["state"] == "ready" for one in await balancer.replicas()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            await until(lambda: nodes() == 2, "a node for the next replica", 40)
            tasks.append(asyncio.create_task(clients.run()))
            clients.per_s = 3.0
            await asyncio.sleep(5.0)
            clients.per_s = 30.0
            up_s = await until(lambda: replicas() == MOST, "demand has brought replicas", 90)
            await until(lambda: len(kubelets.servers) == MOST, "runtimes", 20)
            worked: set[str] = set()
            high_until = time.monotonic() + 40.0
            while len(worked) < MOST and time.monotonic() < high_until:
                worked |= {one["id"] for one in await balancer.replicas() if one["in_flight"]}
                await asyncio.sleep(0.05)
            clients.per_s = 3.0
            down_s = await until(lambda: replicas() == 1, "replicas are given back", 90)
            released_s = await until(lambda: nodes() <= 2, "nodes are given back", 60)
            await clients.finish()
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        kubelets.stop()
    whole = clients.ends.pop("whole")
    print(
        f"{whole} streams, lost {sum(clients.ends.values())}; to {MOST} replicas in {up_s:.1f} s, back to one in "
        f"{down_s:.1f} s, its nodes {released_s:.1f} s later; at most {most_nodes} nodes"
    )
    assert clients.ends == {}
    assert whole > 300
    assert len(worked) == MOST, "each replica had work"
    assert most_nodes >= MOST
    assert len(kubelets.ended) == MOST - 1
    assert set(kubelets.ended) <= kubelets.marked, "what ended had been drained"
