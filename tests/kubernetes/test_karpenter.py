"""Karpenter in the test cluster does what the tests of node pools rely on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.karpenter import INSTANCE_TYPE, NODE_POOLS, node_pool, pool_is_ready
from tests.kubernetes.workloads import DEPLOYMENTS, deployment


@pytest.fixture
def room(karpenter: Cluster) -> Iterator[str]:
    """A namespace there; the NodePool `gpu` goes with it."""
    namespace = karpenter.add_namespace()
    yield namespace
    karpenter.remove_namespace(namespace)
    karpenter.call("DELETE", f"{NODE_POOLS}/gpu")


def test_pending_pods_bring_nodes_and_the_limit_holds(karpenter: Cluster, room: str) -> None:
    karpenter.create(NODE_POOLS, node_pool("gpu", gpus=16))
    karpenter.eventually(lambda: pool_is_ready(karpenter, "gpu"), "the NodePool", 20)
    path = DEPLOYMENTS.format(room)
    karpenter.create(path, deployment("llm", 3, gpus=8))

    def ready() -> int:
        found: int = karpenter.call("GET", f"{path}/llm")[1]["status"].get("readyReplicas", 0)
        return found

    karpenter.eventually(lambda: ready() == 2, "two nodes for two of the three pods", 30)
    nodes = karpenter.call("GET", "/api/v1/nodes")[1]["items"]
    assert {node["metadata"]["labels"]["node.kubernetes.io/instance-type"] for node in nodes} == {INSTANCE_TYPE}
    assert {node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes} == {"8"}
    pods = karpenter.call("GET", f"/api/v1/namespaces/{room}/pods")[1]["items"]
    waiting = [pod for pod in pods if pod["status"]["phase"] == "Pending"]
    assert [condition["reason"] for condition in waiting[0]["status"]["conditions"]] == ["Unschedulable"]
    assert ready() == 2


def test_a_static_pool_has_the_nodes_that_its_scale_says(karpenter: Cluster) -> None:
    karpenter.create(NODE_POOLS, node_pool("static", nodes=1))

    def nodes() -> int:
        return len(karpenter.call("GET", "/api/v1/nodes?labelSelector=karpenter.sh/nodepool%3Dstatic")[1]["items"])

    karpenter.eventually(lambda: nodes() == 1, "one node", 30)
    karpenter.call("PATCH", f"{NODE_POOLS}/static/scale", {"spec": {"replicas": 3}}, "application/merge-patch+json")
    karpenter.eventually(lambda: nodes() == 3, "three nodes", 30)
    karpenter.call("DELETE", f"{NODE_POOLS}/static")


def test_it_is_in_a_network_of_its_own(karpenter: Cluster) -> None:
    """Its metrics port 8080 is one that other things like to have."""
    child = karpenter.children["karpenter"]
    assert child.alive, child.tail()
    pid = child.process.pid
    (program,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert Path(f"/proc/{program}/comm").read_text().startswith("karpenter")
    networks = {Path(f"/proc/{name}/ns/net").readlink() for name in ("self", pid, program)}
    assert len(networks) == 2
