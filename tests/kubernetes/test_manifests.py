"""What deploy/kubernetes ships, on a real API server: every manifest is accepted, and its pods come up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.conftest import OVERLAYS, built
from tests.deploy.kustomize import Manifest
from tests.kubernetes.cluster import ZONES, Cluster
from tests.kubernetes.manifests import apply, custom_resource, define, in_order

NAMESPACE = "tidegate"
GPU_LABEL = {"nvidia.com/gpu.present": "true"}


@pytest.fixture(scope="module")
def operators(cluster: Cluster) -> Cluster:
    """The cluster with what NVIDIA's and Prometheus' operators would have brought: a runtime class, labels, a CRD."""
    define(cluster, custom_resource("monitoring.coreos.com", "v1", "PodMonitor"))
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}}
    status, answer = apply(cluster, {**runtime, "handler": "nvidia"})
    assert status in (200, 201), answer
    for index in range(len(ZONES) - 1):
        patch = {"metadata": {"labels": GPU_LABEL}}
        assert cluster.call("PATCH", f"/api/v1/nodes/gpu-{index}", patch, "application/merge-patch+json")[0] == 200
    status, answer = apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    assert status in (200, 201), answer
    return cluster


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.name)
def manifests(request: pytest.FixtureRequest) -> tuple[Manifest, ...]:
    """What `kubectl apply -k` of one overlay sends."""
    return built(request.param)


def pods(cluster: Cluster, component: str) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component%3D{component}"
    found: list[dict[str, Any]] = cluster.call("GET", path)[1]["items"]
    return found


def _clear(cluster: Cluster) -> None:
    """End what another overlay has started, at once: a roll-out would wait for its graces, 140 s a node."""
    for collection in ("daemonsets", "deployments", "statefulsets"):
        cluster.call(
            "DELETE", f"/apis/apps/v1/namespaces/{NAMESPACE}/{collection}", {"propagationPolicy": "Background"}
        )
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"

    def gone() -> bool:
        left = cluster.call("GET", path)[1]["items"]
        for pod in left:
            cluster.call("DELETE", f"{path}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
        return not left

    cluster.eventually(gone, "nothing left of the overlay before", 30)


def test_the_server_accepts_every_field(operators: Cluster, manifests: tuple[Manifest, ...]) -> None:
    refused = {}
    for manifest in manifests:
        status, answer = apply(operators, manifest, dry_run=True)
        if status not in (200, 201):
            refused[manifest["kind"], manifest["metadata"]["name"]] = answer
    assert not refused


def test_a_field_with_a_typing_error_would_be_seen(operators: Cluster, manifests: tuple[Manifest, ...]) -> None:
    workload = next(one for one in manifests if one["kind"] in ("DaemonSet", "Deployment"))
    wrong = {**workload, "spec": {**workload["spec"], "minReadySecond": 5}}
    status, answer = apply(operators, wrong, dry_run=True)
    assert status >= 400
    assert "minReadySecond" in str(answer)


def test_they_can_be_applied_twice_and_the_pods_come_up(operators: Cluster, manifests: tuple[Manifest, ...]) -> None:
    """Admitted under the `restricted` standard that the namespace enforces, with their priority, on the right nodes."""
    _clear(operators)
    for _ in range(2):
        for manifest in in_order(manifests):
            status, answer = apply(operators, manifest)
            assert status in (200, 201), (manifest["kind"], manifest["metadata"]["name"], answer)
    daemons = [one for one in manifests if one["kind"] == "DaemonSet"]
    (controllers,) = [one for one in manifests if one["kind"] == "Deployment"]
    for one in daemons:
        on_gpus = "nodeSelector" in one["spec"]["template"]["spec"]
        wanted = {f"gpu-{index}" for index in range(len(ZONES) - on_gpus)}
        operators.eventually(
            lambda wanted=wanted: _on(operators) == wanted, f"a ready balancer on {sorted(wanted)}", 30
        )
        assert {pod["spec"]["priority"] for pod in pods(operators, "balancer")} == {1_000_000}
    number = controllers["spec"]["replicas"]
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/tidegate-controller"
    operators.eventually(
        lambda: operators.call("GET", path)[1].get("status", {}).get("readyReplicas") == number, "ready controllers", 30
    )
    found = pods(operators, "controller")
    assert {pod["spec"]["preemptionPolicy"] for pod in found} == {"Never" if daemons else "PreemptLowerPriority"}
    assert len({pod["spec"]["nodeName"] for pod in found}) == number, "one node, one failure"


def _on(cluster: Cluster) -> set[str]:
    """Nodes with a balancer that is ready."""
    found = pods(cluster, "balancer")
    return {
        pod["spec"].get("nodeName", "")
        for pod in found
        if any((one["type"], one["status"]) == ("Ready", "True") for one in pod["status"].get("conditions", ()))
    }


@pytest.fixture
def in_two_parts(operators: Cluster) -> Cluster:
    """The cluster with a balancer on each GPU node and two controllers."""
    _clear(operators)
    manifests = built(next(path for path in OVERLAYS if path.name == "production"))
    for manifest in in_order(manifests):
        status, answer = apply(operators, manifest)
        assert status in (200, 201), answer
    wanted = {f"gpu-{index}" for index in range(len(ZONES) - 1)}
    operators.eventually(lambda: _on(operators) == wanted, f"a ready balancer on {sorted(wanted)}", 30)
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/tidegate-controller"
    operators.eventually(
        lambda: operators.call("GET", path)[1].get("status", {}).get("readyReplicas") == 2, "two ready controllers", 30
    )
    return operators


def test_the_service_has_every_balancer_behind_it(in_two_parts: Cluster) -> None:
    operators = in_two_parts
    path = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"

    def addresses(service: str) -> set[tuple[str, int]]:
        found = operators.call("GET", f"{path}?labelSelector=kubernetes.io/service-name%3D{service}")[1]["items"]
        return {
            (address, port["port"])
            for one in found
            for endpoint in one["endpoints"] or ()
            if endpoint["conditions"]["ready"]
            for address in endpoint["addresses"]
            for port in one["ports"] or ()
        }

    hosts = {pod["status"]["podIP"] for pod in pods(operators, "balancer")}
    operators.eventually(
        lambda: addresses("tidegate") == {(host, 8080) for host in hosts}, "the data plane's endpoints", 10
    )
    operators.eventually(
        lambda: addresses("tidegate-balancer-admin") == {(host, 9400) for host in hosts}, "those of the admin API", 10
    )


def test_the_budget_lets_one_controller_go_at_a_time(in_two_parts: Cluster) -> None:
    operators = in_two_parts
    path = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/tidegate-controller"
    operators.eventually(
        lambda: operators.call("GET", path)[1].get("status", {}).get("disruptionsAllowed") == 1, "a budget of one", 10
    )
    first, second = (pod["metadata"]["name"] for pod in pods(operators, "controller"))

    def evict(name: str) -> int:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
        return operators.call("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", body)[0]

    def cordon(cordoned: bool) -> None:
        for index in range(len(ZONES)):
            patch = {"spec": {"unschedulable": cordoned}}
            operators.call("PATCH", f"/api/v1/nodes/gpu-{index}", patch, "application/merge-patch+json")

    cordon(True)  # or the replacement would be ready before the second is asked for
    try:
        assert evict(first) == 201
        assert evict(second) == 429
    finally:
        cordon(False)


def test_a_pod_with_rights_on_its_node_is_not_admitted_there(operators: Cluster) -> None:
    pod = {"metadata": {"name": "intruder"}, "spec": {"hostPID": True, "containers": [{"name": "a", "image": "a:1"}]}}
    status, answer = operators.call("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", pod)
    assert status == 403
    assert "restricted" in answer["message"]
