"""Balancers on the nodes and controllers apart from them, as `deploy/kubernetes/overlays/production` has it.

Demand that no controller sees pass brings replicas and gives them back, under another leader, and no request is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.test_story import MOST, POOL, Clients, Kubelets
from tests.kubernetes.workloads import DEPLOYMENTS, deployment
from tests.runtimes.balancer import Balancer, balancing
from tests.runtimes.processes import free_port

CONTROLLERS = ("tidegate-controller-0", "tidegate-controller-1")
OBJECTIVE = {"misses": "5%"}


def kubelets_at(cluster: Cluster, cidr: str) -> None:
    """Have kwok give pods addresses from there."""
    cluster.children.pop("kwok").kill()
    # The nodes are its predecessor's for 40 s, unless that one is forgotten.
    cluster.call("DELETE", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
    cluster.start_kwok(cidr)


@pytest.fixture
def loopback(cluster: Cluster) -> Iterator[str]:
    """A namespace whose pods have addresses that can be listened on."""
    kubelets_at(cluster, "127.3.0.1/16")
    namespace = cluster.add_namespace()
    yield namespace
    cluster.remove_namespace(namespace)
    kubelets_at(cluster, "10.244.0.1/16")


def observing() -> dict[str, Any]:
    """What the balancers' policy says of the pool."""
    pool = {"name": POOL, "mode": "observe", "actuator": {"type": "dry_run"}, "objective": OBJECTIVE}
    return {"interval": "1s", "pools": [pool]}


def owning(cluster: Cluster, namespace: str, balancers: list[str]) -> dict[str, Any]:
    """What the controllers' policy says of it, quicker than anybody would want it."""
    rule = {"signal": "output_tokens", "above": 500, "duration": "2s", "step": 1.0}
    kubeconfig = str(cluster.kubeconfig("admin"))
    actuator = {
        "type": "kubernetes", "kubeconfig": kubeconfig, "namespace": namespace, "workloads": [{"name": "llm"}],
    }  # fmt: skip
    pool = {
        "name": POOL, "mode": "own", "min_replicas": 1, "max_replicas": MOST, "rules": [rule],
        "predictive": {"enabled": False}, "start": {"p50": "5s", "p95": "10s"}, "human": "0s", "objective": OBJECTIVE,
        "down": {"hold": "5s", "payback": "0s", "drain": "60s"}, "actuator": actuator,
    }  # fmt: skip
    lease = {"namespace": namespace, "duration": "4s", "fence": "3s", "retry": "1s"}
    return {"interval": "1s", "lease": lease, "balancers": [{"url": url} for url in balancers], "pools": [pool]}


class Stage:
    """What happens in the cluster, as a test waits for it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._deployment = f"{DEPLOYMENTS.format(namespace)}/llm"
        self._lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/tidegate"

    def replicas(self) -> int:
        found: int = self._cluster.call("GET", self._deployment)[1]["status"].get("readyReplicas", 0)
        return found

    def leader(self) -> str:
        status, lease = self._cluster.call("GET", self._lease)
        return str(lease["spec"].get("holderIdentity") or "").partition("_")[0] if status == 200 else ""

    async def until(self, holds: Callable[[], object], what: str, within_s: float) -> float:
        began = time.monotonic()
        while not await asyncio.to_thread(holds):
            assert time.monotonic() - began < within_s, f"{what}: {self.replicas()} replicas, led by {self.leader()}"
            await asyncio.sleep(0.1)
        return time.monotonic() - began


@pytest.mark.timeout(300)
async def test_controllers_scale_by_the_demand_at_balancers_and_no_request_is_lost(
    cluster: Cluster, loopback: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, namespace = free_port(), loopback
    template = {"annotations": {"test/exit-after": "0s"}}
    cluster.create(DEPLOYMENTS.format(namespace), deployment("llm", 1, port=port, **template))
    kubelets, stage = Kubelets(cluster, namespace, port, tmp_path), Stage(cluster, namespace)
    config = str(cluster.kubeconfig("admin"))
    # No Service: an EndpointSlice takes no address on loopback.
    source = {"kubeconfig": config, "namespace": namespace, "pods": "app=llm"}
    monkeypatch.setenv("KUBECONFIG", config)
    async with contextlib.AsyncExitStack() as stack:
        tasks = [asyncio.create_task(kubelets.run())]
        stack.callback(kubelets.stop)
        stack.push_async_callback(_end, tasks)
        await asyncio.to_thread(cluster.eventually, lambda: bool(kubelets.servers), "the first runtime", 40)
        lb = {"kubernetes": [source], "log": {}}
        balancers = [await stack.enter_async_context(balancing(tmp_path, lb=lb, scaling=observing())) for _ in range(2)]
        scaling = owning(cluster, namespace, [one.admin for one in balancers])
        controllers: dict[str, Balancer] = {}
        for name in CONTROLLERS:
            monkeypatch.setenv("POD_NAME", name)
            controllers[name] = await stack.enter_async_context(balancing(tmp_path, lb={"log": {}}, scaling=scaling))
        clients = [Clients(one) for one in balancers]
        for one in balancers:
            while not any(each["state"] == "ready" for each in await one.replicas()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        tasks += [asyncio.create_task(one.run()) for one in clients]
        for one in clients:
            one.per_s = 1.5
        await stage.until(lambda: stage.leader() in CONTROLLERS, "one of them leads", 20)
        await asyncio.sleep(5.0)
        for one in clients:
            one.per_s = 12.0
        up_s = await stage.until(lambda: stage.replicas() == MOST, "demand has brought replicas", 90)
        first = stage.leader()
        controllers[first].server.kill()
        for one in clients:
            one.per_s = 1.5
        taken_s = await stage.until(lambda: stage.leader() not in ("", first), "another leads", 20)
        down_s = await stage.until(lambda: stage.replicas() == 1, "replicas are given back", 90)
        for one in clients:
            await one.finish()
        said = [one.server.log.read_text() for one in controllers.values()]
    ends: Counter[str] = sum((one.ends for one in clients), Counter())
    whole = ends.pop("whole")
    print(
        f"{whole} streams through two balancers, lost {ends.total()}; to {MOST} replicas in {up_s:.1f} s, "
        f"another leader {taken_s:.1f} s after a SIGKILL, back to one replica {down_s:.1f} s later"
    )
    assert ends == {}
    assert whole > 200
    assert len(kubelets.ended) == MOST - 1
    assert set(kubelets.ended) <= kubelets.marked, "what ended had been drained"
    assert all("Traceback" not in text for text in said)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
