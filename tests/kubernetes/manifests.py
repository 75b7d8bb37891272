"""Applying manifests to the test cluster as kubectl does: server-side, each at its own path."""

from __future__ import annotations

from typing import Any

from tests.deploy.kustomize import CLUSTER_SCOPED, Manifest
from tests.kubernetes.cluster import Cluster

PLURALS = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses", "RuntimeClass": "runtimeclasses"}
ORDER = ("Namespace", "PriorityClass", "ServiceAccount", "ClusterRole", "Role")
"""What others refer to comes first, as in kustomize."""


def path_of(manifest: Manifest) -> str:
    """Where the object is in the API."""
    group = manifest["apiVersion"]
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    kind = manifest["kind"]
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    name = manifest["metadata"]["name"]
    if kind in CLUSTER_SCOPED or kind == "RuntimeClass":
        return f"{root}/{plural}/{name}"
    return f"{root}/namespaces/{manifest['metadata']['namespace']}/{plural}/{name}"


def apply(cluster: Cluster, manifest: Manifest, *, dry_run: bool = False) -> tuple[int, Any]:
    """Server-side apply with strict fields: an unknown one is refused and not dropped."""
    query = "?fieldManager=kubectl&fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    return cluster.call("PATCH", path_of(manifest) + query, manifest, "application/apply-patch+yaml")


def in_order(manifests: tuple[Manifest, ...]) -> list[Manifest]:
    """As they can be applied one after the other."""
    return sorted(manifests, key=lambda one: ORDER.index(one["kind"]) if one["kind"] in ORDER else len(ORDER))


def custom_resource(group: str, version: str, kind: str, *, scale: bool = False, scope: str = "Namespaced") -> Manifest:
    """A definition that takes any content, for objects whose operators do not run here."""
    plural = f"{kind.lower()}s"
    described: Manifest = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    if scale:
        numbers = {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {"replicas": {"type": "integer"}},
        }
        described["schema"]["openAPIV3Schema"]["properties"] = {"spec": numbers, "status": numbers}
        described["subresources"] = {
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": scope,
            "versions": [described],
        },
    }


def define(cluster: Cluster, definition: Manifest) -> None:
    """Make a custom resource and wait until it is served."""
    status, answer = apply(cluster, definition)
    assert status in (200, 201), answer
    spec = definition["spec"]
    collection = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    cluster.eventually(
        lambda: cluster.call("GET", collection)[0] == 200, f"the API of {definition['metadata']['name']}"
    )
