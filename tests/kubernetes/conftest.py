"""Collected only on purpose: these tests need a control plane that takes twelve minutes to build the first time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from lb.kube import KubeApi
from tests.kubernetes.cache import missing
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.fault_proxy import FaultProxy
from tests.kubernetes.karpenter import start_karpenter
from tests.kubernetes.workloads import DEPLOYMENTS, deployment, service

if os.environ.get("TIDEGATE_KUBERNETES") != "1":
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One control plane for all tests: nodes `gpu-0` to `gpu-2`, eight GPUs each, in two zones."""
    absent = [module for module in missing() if module != "karpenter"]
    assert not absent, f"not built: {', '.join(absent)}; python tests/kubernetes/build.py builds them"
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        started.start()
        yield started
    finally:
        started.kill()


@pytest.fixture(scope="session")
def karpenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Another cluster, without nodes, in which Karpenter makes them; each test creates its NodePool and deletes it."""
    absent = missing()
    assert not absent, f"not built: {', '.join(absent)}; python tests/kubernetes/build.py builds them"
    started = Cluster(tmp_path_factory.mktemp("karpenter"), zones=())
    try:
        started.start()
        start_karpenter(started)
        yield started
    finally:
        started.kill()


@pytest.fixture
def new_namespace(cluster: Cluster) -> Iterator[Callable[[], str]]:
    """Makes a namespace in which pods can be created, and gives its name. Its pods are gone when the test is."""
    made: list[str] = []

    def make() -> str:
        made.append(cluster.add_namespace())
        return made[-1]

    yield make
    for name in made:
        cluster.remove_namespace(name)


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """A namespace for this test alone."""
    return new_namespace()


@pytest.fixture
def started(cluster: Cluster, namespace: str) -> str:
    """A namespace with a Service `llm` before two pods."""
    cluster.create(f"/api/v1/namespaces/{namespace}/services", service("llm"))
    cluster.create(DEPLOYMENTS.format(namespace), deployment("llm", 2))
    return namespace


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[KubeApi]:
    """The administrator's calls, by our own client."""
    made = KubeApi(cluster.access())
    yield made
    await made.close()


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[FaultProxy]:
    """A proxy before the API server, well until the test says otherwise."""
    async with FaultProxy(cluster) as started:
        yield started
