"""Karpenter with its kwok provider: nodes that appear because pods are pending, and go when they are empty."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.cache import MODULES, program
from tests.kubernetes.children import Child
from tests.kubernetes.cluster import Cluster

INSTANCE_TYPE = "h100-8x"
ZONE = "test-zone-a"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NODE_POOLS = "/apis/karpenter.sh/v1/nodepools"
NODE_CLASSES = "/apis/karpenter.kwok.sh/v1alpha1/kwoknodeclasses"


def start_karpenter(cluster: Cluster, *, registration_delay: str = "0s") -> None:
    """Its kinds, the node class `default` (nodes register after that delay), and the program; ends with the cluster."""
    for path in sorted(program("crds").glob("*.yaml")):
        cluster.create(CRDS, yaml.safe_load(path.read_text()))
    for path in (NODE_POOLS, NODE_CLASSES):
        cluster.eventually(lambda path=path: cluster.call("GET", path)[0] == 200, path)  # type: ignore[misc]
    cluster.create(
        NODE_CLASSES,
        {
            "apiVersion": "karpenter.kwok.sh/v1alpha1",
            "kind": "KWOKNodeClass",
            "metadata": {"name": "default"},
            "spec": {"nodeRegistrationDelay": registration_delay},
        },
    )
    types = cluster.directory / "instance-types.json"
    shutil.copyfile(MODULES / "instance-types.json", types)
    cluster.children["karpenter"] = Child(
        "karpenter",
        # It listens on all addresses, and no option forbids that.
        [sys.executable, "-m", "tests.kubernetes.isolated", str(cluster.port), program("karpenter-kwok")],
        cluster.directory / "karpenter.log",
        env={
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "KUBECONFIG": str(cluster.kubeconfig("admin")),
            "INSTANCE_TYPES_FILE_PATH": str(types),
            "BATCH_IDLE_DURATION": "200ms",
            "BATCH_MAX_DURATION": "2s",
            "DISABLE_LEADER_ELECTION": "true",
            "FEATURE_GATES": "StaticCapacity=true",
            "SYSTEM_NAMESPACE": "kube-system",
        },
    )


def node_pool(
    name: str, *, gpus: int | None = None, nodes: int | None = None, consolidate_after: str = "30s"
) -> dict[str, Any]:
    """Nodes of our one instance type. `gpus` limits them all together; `nodes` makes it static: that many, always."""
    requirements = [
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [INSTANCE_TYPE]},
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
    ]
    node_class = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}
    spec: dict[str, Any] = {"template": {"spec": {"nodeClassRef": node_class, "requirements": requirements}}}
    if nodes is None:
        spec["disruption"] = {"consolidationPolicy": "WhenEmpty", "consolidateAfter": consolidate_after}
        if gpus is not None:
            spec["limits"] = {"nvidia.com/gpu": str(gpus)}
    else:
        spec["replicas"] = nodes
    return {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": name}, "spec": spec}


def pool_is_ready(cluster: Cluster, name: str) -> bool:
    conditions = cluster.call("GET", f"{NODE_POOLS}/{name}")[1].get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
