"""The control plane itself does what the other tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lb.kube import ForbiddenError, InCluster, KubeApi, KubeConfig
from lb.kube.access import own_namespace
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.workloads import deployment


def test_a_deployment_of_two_gets_ready(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    cluster.create(path, deployment("llm", 2))

    cluster.eventually(
        lambda: cluster.call("GET", f"{path}/llm")[1]["status"].get("readyReplicas") == 2, "two ready pods", 10
    )


def test_it_is_the_version_that_the_modules_name(cluster: Cluster) -> None:
    assert cluster.call("GET", "/version")[1]["gitVersion"] == "v1.36.3"


def test_a_test_decides_when_a_pod_is_ready(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    cluster.create(path, deployment("llm", 1, annotations={"test/ready-delay": "1h"}))
    pods = f"/api/v1/namespaces/{namespace}/pods"
    cluster.eventually(
        lambda: any(pod["spec"].get("nodeName") for pod in cluster.call("GET", pods)[1]["items"]), "a pod on a node", 10
    )
    (pod,) = cluster.call("GET", pods)[1]["items"]
    assert pod["status"]["phase"] == "Pending"

    patch = {"metadata": {"annotations": {"test/ready-delay": "0s"}}}
    cluster.call("PATCH", f"{pods}/{pod['metadata']['name']}", patch, "application/merge-patch+json")

    cluster.eventually(lambda: cluster.call("GET", pods)[1]["items"][0]["status"]["phase"] == "Running", "ready", 10)


def test_nothing_outlives_a_killed_test_run(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.kubernetes.children import Child\n"
        "child = Child('sleep', ['sleep', '300'], Path(sys.argv[1]) / 'log'); print(child.process.pid, flush=True)\n"
        "time.sleep(300)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        child = int(run.stdout.readline())
        os.kill(child, 0)
        run.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + 10
    while _running(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _running(pid: int) -> bool:
    """A process that has ended may wait for its reaper: that is not running."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_our_client_reads_it(api: KubeApi, namespace: str) -> None:
    listing = await api.list_all("/api/v1/nodes")
    assert {node["metadata"]["name"] for node in listing.items} >= {"gpu-0", "gpu-1", "gpu-2"}
    assert int(listing.resource_version) > 0


async def test_a_kubeconfig_file_reads_it_too(cluster: Cluster) -> None:
    api = KubeApi(KubeConfig(cluster.kubeconfig("admin")))
    try:
        assert (await api.get("/version"))["gitVersion"] == "v1.36.3"
    finally:
        await api.close()


async def test_as_a_pod_the_service_account_is_enough(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files and variables that the kubelet gives to a pod, on the ServiceAccount's own token."""
    spec = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"audiences": []}}
    issued = cluster.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", spec)
    (tmp_path / "token").write_text(issued["status"]["token"])
    (tmp_path / "ca.crt").write_bytes(cluster.ca.read_bytes())
    (tmp_path / "namespace").write_text(namespace)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
    access = InCluster(tmp_path)
    api = KubeApi(access)
    try:
        review = await api.create(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        )
        with pytest.raises(ForbiddenError):
            await api.list_all(f"/api/v1/namespaces/{namespace}/pods")
    finally:
        await api.close()
    assert review["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert own_namespace(access) == namespace
