"""A resource of our own with the scale subresource, as model servers' operators have them."""

from __future__ import annotations

from typing import Any

from tests.kubernetes.cluster import Cluster

GROUP = "test.tidegate.dev/v1"
RESOURCE = f"{GROUP}/fleets"


def _definition() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "replicas": {"type": "integer", "minimum": 0},
                    "selector": {"type": "string"},
                },
            },
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
        },
    }
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".spec.selector",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": scale},
    }
    return {
        "metadata": {"name": "fleets.test.tidegate.dev"},
        "spec": {
            "group": "test.tidegate.dev",
            "scope": "Namespaced",
            "names": {"plural": "fleets", "singular": "fleet", "kind": "Fleet"},
            "versions": [version],
        },
    }


def define(cluster: Cluster) -> None:
    """Once per cluster; a second call does nothing."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    if cluster.call("GET", f"{path}/fleets.test.tidegate.dev")[0] == 200:
        return
    cluster.create(path, _definition())
    cluster.eventually(lambda: cluster.call("GET", f"/apis/{GROUP}/fleets")[0] == 200, "fleets are served", 20)


def create(cluster: Cluster, namespace: str, replicas: int, selector: str = "app=llm") -> None:
    define(cluster)
    body = {
        "apiVersion": GROUP,
        "kind": "Fleet",
        "metadata": {"name": "llm"},
        "spec": {"replicas": replicas, "selector": selector},
    }
    cluster.create(f"/apis/{GROUP}/namespaces/{namespace}/fleets", body)
