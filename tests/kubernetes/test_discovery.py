"""Replicas from a real API server: who is ready, where, since when, and what it says of itself."""

from __future__ import annotations

import pytest

from lb.kube import KubeApi, PatchKind
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.following import following
from tests.kubernetes.workloads import DEPLOYMENTS, deployment, service

BOTH = {"service": "llm", "pods": "app=llm"}


@pytest.mark.parametrize("selection", [{"service": "llm"}, {"pods": "app=llm"}, BOTH])
async def test_pods_come_and_go(cluster: Cluster, api: KubeApi, started: str, selection: dict[str, str]) -> None:
    async with following(cluster.access(), started, **selection) as followed:
        await followed.until(lambda: len(followed.now) == 2)
        await api.patch(f"{DEPLOYMENTS.format(started)}/llm/scale", {"spec": {"replicas": 5}})
        up_s = await followed.until(lambda: len(followed.now) == 5)
        await api.patch(f"{DEPLOYMENTS.format(started)}/llm/scale", {"spec": {"replicas": 1}})
        down_s = await followed.until(lambda: len(followed.now) == 1)
    print(f"{selection}: five replicas known after {up_s:.3f} s, one after {down_s:.3f} s")
    assert max(up_s, down_s) < 3.0


async def test_identity_zone_node_and_port_are_those_of_the_pod(cluster: Cluster, api: KubeApi, started: str) -> None:
    zones = {f"gpu-{index}": zone for index, zone in enumerate(("zone-a", "zone-b", "zone-a"))}
    for selection in ({"service": "llm"}, {"pods": "app=llm"}):
        async with following(cluster.access(), started, **selection) as followed:
            await followed.until(lambda followed=followed: len(followed.now) == 2)
        pods = await api.list_all(f"/api/v1/namespaces/{started}/pods")
        uids = {pod["metadata"]["uid"]: pod for pod in pods.items}
        for endpoint in followed.now:
            pod = uids[endpoint.id]
            assert endpoint.host == pod["status"]["podIP"]
            assert endpoint.port == 8000
            assert endpoint.labels["node"] == pod["spec"]["nodeName"]
            assert endpoint.zone == zones[pod["spec"]["nodeName"]]
            assert endpoint.labels["pod"] == pod["metadata"]["name"]


async def test_a_pod_is_listed_once_it_is_ready(cluster: Cluster, api: KubeApi, namespace: str) -> None:
    cluster.create(f"/api/v1/namespaces/{namespace}/services", service("llm"))
    cluster.create(DEPLOYMENTS.format(namespace), deployment("llm", 1, annotations={"test/ready-delay": "1h"}))
    pods = f"/api/v1/namespaces/{namespace}/pods"
    async with following(cluster.access(), namespace, **BOTH) as followed:
        await followed.until(lambda: followed.sets == [()])
        cluster.eventually(
            lambda: any(pod["spec"].get("nodeName") for pod in cluster.call("GET", pods)[1]["items"]), "a node"
        )
        (pod,) = (await api.list_all(pods)).items
        assert followed.now == ()
        await api.patch(f"{pods}/{pod['metadata']['name']}", {"metadata": {"annotations": {"test/ready-delay": "0s"}}})
        await followed.until(lambda: followed.names == {pod["metadata"]["name"]})


async def test_a_pod_that_ends_drains_at_once_though_it_still_serves(
    cluster: Cluster, api: KubeApi, started: str
) -> None:
    async with following(cluster.access(), started, service="llm") as followed:
        await followed.until(lambda: len(followed.now) == 2)
        leaving = followed.now[0]
        await api.delete(f"/api/v1/namespaces/{started}/pods/{leaving.labels['pod']}")
        took_s = await followed.until(lambda: leaving.id not in {endpoint.id for endpoint in followed.now})
        # Its grace period of 30 s has only begun: the API still shows it, serving and on its way out.
        slices = await api.list_all(f"/apis/discovery.k8s.io/v1/namespaces/{started}/endpointslices")
        (conditions,) = [
            endpoint["conditions"]
            for one in slices.items
            for endpoint in one["endpoints"]
            if endpoint["targetRef"]["uid"] == leaving.id
        ]
        assert conditions == {"ready": False, "serving": True, "terminating": True}
    assert took_s < 3.0


async def test_annotations_say_what_a_pod_serves_and_change_while_it_runs(
    cluster: Cluster, api: KubeApi, namespace: str
) -> None:
    cluster.create(f"/api/v1/namespaces/{namespace}/services", service("llm"))
    told = {"tidegate.dev/models": "llama,llama-lora", "tidegate.dev/runtime": "vllm"}
    cluster.create(DEPLOYMENTS.format(namespace), deployment("llm", 1, annotations=told))
    async with following(cluster.access(), namespace, **BOTH) as followed:
        await followed.until(lambda: len(followed.now) == 1)
        assert all(endpoint.models == ("llama", "llama-lora") for found in followed.sets for endpoint in found)
        (replica,) = followed.now
        assert replica.runtime == "vllm"
        path = f"/api/v1/namespaces/{namespace}/pods/{replica.labels['pod']}"

        await api.patch(path, {"metadata": {"annotations": {"tidegate.dev/models": "qwen"}}})
        await followed.until(lambda: [endpoint.models for endpoint in followed.now] == [("qwen",)])
        assert followed.now[0].id == replica.id

        await api.patch(path, {"metadata": {"annotations": {"tidegate.dev/draining": "scale-down"}}})
        await followed.until(lambda: followed.now == ())
        await api.patch(path, {"metadata": {"annotations": {"tidegate.dev/draining": None}}})
        await followed.until(lambda: [endpoint.id for endpoint in followed.now] == [replica.id])


async def test_an_address_written_by_hand_is_a_replica_too(cluster: Cluster, namespace: str) -> None:
    """A GPU server outside of the cluster, behind a Service without a selector."""
    cluster.create(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        {
            "metadata": {"name": "outside", "labels": {"kubernetes.io/service-name": "llm"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.7"], "zone": "rack-9"}],
            "ports": [{"name": "http", "port": 9000}],
        },
    )
    async with following(cluster.access(), namespace, **BOTH) as followed:
        await followed.until(lambda: len(followed.now) == 1)
    (replica,) = followed.now
    assert (replica.id, replica.zone) == ("http://192.0.2.7:9000", "rack-9")


async def test_a_service_that_is_gone_has_no_replicas(cluster: Cluster, api: KubeApi, started: str) -> None:
    async with following(cluster.access(), started, service="llm") as followed:
        await followed.until(lambda: len(followed.now) == 2)
        await api.delete(f"/api/v1/namespaces/{started}/services/llm")
        await followed.until(lambda: followed.now == ())


@pytest.mark.parametrize(
    ("selection", "resource", "group"),
    [({"service": "llm"}, "endpointslices", "discovery.k8s.io"), ({"pods": "app=llm"}, "pods", "")],
)
async def test_list_and_watch_are_all_the_rights_it_needs_and_403_says_which_is_missing(
    cluster: Cluster, api: KubeApi, started: str, selection: dict[str, str], resource: str, group: str
) -> None:
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{started}"
    cluster.create(f"/api/v1/namespaces/{started}/serviceaccounts", {"metadata": {"name": "balancer"}})
    account = {"kind": "ServiceAccount", "name": "balancer", "namespace": started}
    role = {"metadata": {"name": "balancer"}, "rules": [{"apiGroups": [group], "resources": [resource], "verbs": []}]}
    role["rules"][0]["verbs"] = ["list"]  # type: ignore[index]
    cluster.create(f"{rbac}/roles", role)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "balancer"}
    cluster.create(
        f"{rbac}/rolebindings", {"metadata": {"name": "balancer"}, "subjects": [account], "roleRef": reference}
    )
    issued = await api.create(
        f"/api/v1/namespaces/{started}/serviceaccounts/balancer/token",
        {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"audiences": []}},
    )
    access = cluster.access(token=issued["status"]["token"])
    async with following(access, started, **selection) as followed:
        await followed.until(lambda: "403" in str(followed.source.state.error))
        assert f'cannot watch resource "{resource}"' in str(followed.source.state.error)
        patch = [{"op": "replace", "path": "/rules/0/verbs", "value": ["list", "watch"]}]
        await api.patch(f"{rbac}/roles/balancer", patch, PatchKind.JSON)
        await followed.until(lambda: followed.source.state.error is None and len(followed.now) == 2, 20)
