"""The Kubernetes source over a socket, against a small API server; `tests/kubernetes` has a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lb.clock import SYSTEM_CLOCK
from lb.endpoint import Endpoint
from lb.kube import Explicit, KubeConfig
from lb.settings import KubernetesSource
from lb.sources.kubernetes import KubernetesReplicas
from tests.lb.kube.api_server import ApiServer, Script, eventually, running

CERTIFICATE = Path(__file__).parents[2] / "data" / "tls" / "localhost.pem"


class TwoCollections:
    """EndpointSlices and pods, a small server each, behind one address."""

    def __init__(self) -> None:
        self.slices, self.pods = ApiServer(), ApiServer()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        return await (self.pods if request.path.endswith("/pods") else self.slices).handle(request)

    def pod(self, name: str, address: str, *, ready: bool = True, models: str = "m") -> None:
        """The pod, and what its Service's only EndpointSlice says of all pods."""
        self.pods.put(
            name,
            status={"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": str(ready)}]},
            spec={"containers": [{"ports": [{"name": "http", "containerPort": 80}]}]},
        )
        metadata = self.pods.objects[name]["metadata"]
        metadata |= {"uid": f"uid-{name}", "annotations": {"tidegate.dev/models": models}}
        self.slices.put(
            "llm-1",
            addressType="IPv4",
            ports=[{"name": "http", "port": 8000}],
            endpoints=[
                {
                    "addresses": [pod["status"]["podIP"]],
                    "conditions": {"ready": pod["status"]["conditions"][0]["status"] == "True"},
                    "targetRef": {"kind": "Pod", "name": one, "uid": f"uid-{one}"},
                }
                for one, pod in self.pods.objects.items()
            ],
        )


@pytest.fixture
async def server() -> AsyncIterator[TwoCollections]:
    server = TwoCollections()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


class Sets(list[tuple[Endpoint, ...]]):
    def __call__(self, endpoints: Sequence[Endpoint]) -> None:
        self.append(tuple(endpoints))


def source(server: TwoCollections, directory: Path, **settings: Any) -> KubernetesReplicas:
    token = directory / "token"
    token.write_text("secret")
    access = Explicit(server.url, CERTIFICATE, token)
    return KubernetesReplicas(KubernetesSource(**settings), directory, SYSTEM_CLOCK, access=access)


async def test_nothing_is_pushed_before_both_collections_have_been_seen(server: TwoCollections, tmp_path: Path) -> None:
    server.pod("a", "10.0.0.1", models="llama")
    server.pods.script = [Script(hang=True)]
    made, sets = source(server, tmp_path, service="llm", pods="app=llm", namespace="ns"), Sets()
    async with running(made.run(sets)) as task:
        await eventually(lambda: "watch" in server.slices.kinds())
        await asyncio.sleep(0.1)
        assert sets == []
        assert made.state.refreshed_at is None
        task.cancel()
    sets.clear()
    async with running(made.run(sets)):
        await eventually(lambda: sets)
        assert [endpoint.models for endpoint in sets[0]] == [("llama",)]
        assert made.state.endpoints == 1
        assert made.state.refreshed_at is not None
    paths = {(asked, told["labelSelector"]) for api in (server.slices, server.pods) for _, asked, told in api.calls}
    assert paths == {
        ("GET /apis/discovery.k8s.io/v1/namespaces/ns/endpointslices", "kubernetes.io/service-name=llm"),
        ("GET /api/v1/namespaces/ns/pods", "app=llm"),
    }


async def test_only_differences_are_pushed(server: TwoCollections, tmp_path: Path) -> None:
    server.pod("a", "10.0.0.1")
    made, sets = source(server, tmp_path, service="llm"), Sets()
    async with running(made.run(sets)):
        await eventually(lambda: server.slices.kinds() == ["list", "watch"])
        server.slices.put("llm-1", **{k: v for k, v in server.slices.objects["llm-1"].items() if k != "metadata"})
        server.pod("b", "10.0.0.2")
        await eventually(lambda: len(sets) == 2)
        assert [endpoint.host for endpoint in sets[-1]] == ["10.0.0.1", "10.0.0.2"]
        server.pod("b", "10.0.0.2", ready=False)
        await eventually(lambda: len(sets) == 3)
    assert [endpoint.host for endpoint in sets[-1]] == ["10.0.0.1"]


async def test_f12_a_lost_watch_leaves_the_set_and_says_so(server: TwoCollections, tmp_path: Path) -> None:
    server.pod("a", "10.0.0.1")
    made, sets = source(server, tmp_path, service="llm", watch_idle="200ms"), Sets()
    async with running(made.run(sets)):
        await eventually(lambda: len(sets) == 1)
        server.slices.silent = True
        server.slices.always = Script(503)
        await eventually(lambda: made.state.error is not None)
        assert "503" in str(made.state.error)
        assert len(sets) == 1
        server.slices.always, server.slices.silent = None, False
        await eventually(lambda: made.state.error is None)
    assert len(sets) == 1


async def test_replicas_that_cannot_be_used_are_explained(server: TwoCollections, tmp_path: Path) -> None:
    server.pod("a", "10.0.0.1")
    made, sets = source(server, tmp_path, service="llm", port="grpc"), Sets()
    async with running(made.run(sets)):
        await eventually(lambda: sets == [()])
        assert made.state.error == "EndpointSlice llm-1 has no port called grpc"


def test_names_tell_sources_apart(tmp_path: Path) -> None:
    def name(**settings: Any) -> str:
        return KubernetesReplicas(KubernetesSource(**settings), tmp_path, SYSTEM_CLOCK).name

    assert name(service="llm") == "kubernetes:default/llm"
    assert name(service="llm", pods="app=llm", port=80, namespace="ns") == "kubernetes:ns/llm?app=llm:80"
    assert name(pods="app=llm", kubeconfig="a", context="east") == "kubernetes:east/default/?app=llm"


def test_a_kubeconfig_is_looked_for_beside_the_policy(tmp_path: Path) -> None:
    made = KubernetesReplicas(KubernetesSource(service="llm", kubeconfig="k/config"), tmp_path, SYSTEM_CLOCK)
    assert made._access == KubeConfig(tmp_path / "k" / "config", None)
