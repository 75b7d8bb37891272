"""Bodies of the objects that tests create."""

from __future__ import annotations

from typing import Any

DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"


def pod_template(
    app: str,
    *,
    gpus: int = 1,
    annotations: dict[str, str] | None = None,
    grace_s: int = 30,
    port: int = 8000,
    **spec: Any,
) -> dict[str, Any]:
    """Pods labelled `app` that take `gpus` GPUs and listen, so they say, on `port` (`http`)."""
    container: dict[str, Any] = {
        "name": "runtime",
        "image": "runtime:1",
        "ports": [{"name": "http", "containerPort": port}],
    }
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "metadata": {"labels": {"app": app}, "annotations": annotations or {}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": grace_s, **spec},
    }


def deployment(app: str, replicas: int, kind: str = "Deployment", **template: Any) -> dict[str, Any]:
    """A Deployment (or a StatefulSet) with those pods."""
    spec: dict[str, Any] = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": app}},
        "template": pod_template(app, **template),
    }
    if kind == "StatefulSet":
        spec["serviceName"] = app
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": app}, "spec": spec}


def service(app: str) -> dict[str, Any]:
    """A Service before them; its EndpointSlices come by themselves."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
