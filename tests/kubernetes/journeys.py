"""Everything that Tidegate does in a cluster, done by its own code as the pod it would run in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoscaler.action import Action, Drain, ScaleUp, Stop
from autoscaler.actuator import ActuatorError, Observation
from autoscaler.actuators.kubernetes import KubernetesActuator, build
from autoscaler.fleet import Phase
from autoscaler.loops.kubernetes_lease import KubernetesLease
from autoscaler.loops.leader import LeaderLoop
from autoscaler.policy.lease import LeaseSettings
from autoscaler.policy.pools import Mode, PoolSettings
from lb.clock import Clock
from lb.kube import InCluster
from lb.settings import KubernetesSource
from lb.sources.kubernetes import KubernetesReplicas
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.scaled import MERGE, phases, ready, until
from tests.kubernetes.workloads import deployment, service

POOL = "chat"


@dataclass
class Stage:
    """A cluster, the namespace of the runtimes, and the pods' own credentials by component."""

    cluster: Cluster
    namespace: str
    pods: dict[str, Path]
    """Folders as the kubelet would mount them: token, authority, namespace."""
    ahead_s: float = 0.0
    opened: list[KubernetesActuator] = field(default_factory=list)

    def clock(self) -> Clock:
        """One that a test can put forward."""
        return Clock(lambda: time.monotonic() + self.ahead_s, lambda: time.time() + self.ahead_s)

    def path(self, resource: str, name: str = "", group: str = "apis/apps/v1", namespace: str = "") -> str:
        path = f"/{group}/namespaces/{namespace or self.namespace}/{resource}"
        return f"{path}/{name}" if name else path

    def actuator(self, name: str, resource: str = "deployments", **settings: Any) -> KubernetesActuator:
        """As the controller would make it of its policy."""
        workload = {"name": name, "resource": resource}
        actuator = {"type": "kubernetes", "namespace": self.namespace, "workloads": [workload], **settings}
        pool = PoolSettings.model_validate({"name": POOL, "mode": Mode.OWN, "actuator": actuator})
        access = InCluster(self.pods["controller"])
        made = build(pool, pool.actuator, self.clock(), lambda: True, Path(), access)  # type: ignore[arg-type]
        self.opened.append(made)
        return made

    async def eventually(self, holds: Callable[[], bool], what: str) -> None:
        await asyncio.to_thread(self.cluster.eventually, holds, what, 20.0)

    async def close(self) -> None:
        for one in self.opened:
            await one.close()
        self.opened.clear()


def up(total: int, *names: str) -> ScaleUp:
    return ScaleUp(POOL, "default", names, total, "demand")


async def act(actuator: KubernetesActuator, action: Action) -> None:
    """As the loop does: what could not be done, because something changed meanwhile, is tried at the next tick."""
    async with asyncio.timeout(20.0):
        while True:
            try:
                await actuator.apply(action)
                return
            except ActuatorError:
                await asyncio.sleep(0.2)
                await actuator.observe()


async def balancer_finds_replicas(stage: Stage) -> None:
    """By Service and label, watched: a second pod arrives as an event."""
    stage.cluster.create(stage.path("deployments"), deployment("found", 1))
    stage.cluster.create(stage.path("services", group="api/v1"), service("found"))
    settings = KubernetesSource(service="found", pods="app=found", namespace=stage.namespace)
    source = KubernetesReplicas(settings, Path(), stage.clock(), access=InCluster(stage.pods["balancer"]))
    seen: list[int] = []
    task = asyncio.create_task(source.run(lambda endpoints: seen.append(len(endpoints))))
    try:
        await stage.eventually(lambda: bool(seen) and seen[-1] == 1, f"one replica: {source.state}")
        scale = {"spec": {"replicas": 2}}
        assert stage.cluster.call("PATCH", stage.path("deployments", "found") + "/scale", scale, MERGE)[0] == 200
        await stage.eventually(lambda: seen[-1] == 2, "a second one")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def controller_scales_a_deployment(stage: Stage) -> None:
    """Up, twice with half a minute between (an event is counted up), and down by a drained pod."""
    stage.cluster.create(stage.path("deployments"), deployment("llm", 1, annotations={"test/exit-after": "0s"}))
    actuator = stage.actuator("llm")
    await until(actuator, ready(1))
    await act(actuator, up(2, "chat-1"))
    await until(actuator, ready(2))
    stage.ahead_s += 40.0
    await act(actuator, up(3, "chat-2"))
    seen = await until(actuator, ready(3))
    victim = seen.replicas[0].fact.id
    await act(actuator, Drain(POOL, victim, 60.0, "demand falls"))
    await act(actuator, Stop(POOL, victim, 2, "drained"))
    await until(actuator, ready(2))


async def controller_evicts_what_a_lower_number_would_not_take(stage: Stage) -> None:
    """A ready pod, while another one is not: a ReplicaSet would end that one."""
    stage.cluster.create(stage.path("deployments"), deployment("busy", 1, annotations={"test/exit-after": "0s"}))
    actuator = stage.actuator("busy")
    (first,) = (await until(actuator, ready(1))).replicas
    await act(actuator, up(2, "slow"))
    (slow,) = (one for one in (await until(actuator, ready(2))).replicas if one.fact.id != first.fact.id)
    pods = stage.cluster.call("GET", stage.path("pods", group="api/v1"))[1]["items"]
    (name,) = (pod["metadata"]["name"] for pod in pods if pod["metadata"]["uid"] == slow.fact.id)
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    path = stage.path("pods", name, group="api/v1")
    stage.cluster.call("PATCH", f"{path}/status", {"status": {"conditions": [condition]}}, MERGE)
    await until(actuator, lambda seen: phases(seen) == [Phase.READY, Phase.STARTING])
    await act(actuator, Stop(POOL, first.fact.id, 1, "drained"))
    await until(actuator, lambda seen: first.fact.id not in {one.fact.id for one in seen.replicas})


async def controller_scales_a_stateful_set(stage: Stage) -> None:
    body = deployment("ordered", 1, "StatefulSet", annotations={"test/exit-after": "0s"})
    stage.cluster.create(stage.path("statefulsets"), body)
    actuator = stage.actuator("ordered", "statefulsets")
    await until(actuator, ready(1))
    await act(actuator, up(2, "chat-1"))
    await until(actuator, ready(2))


async def controller_clears_away_an_ended_pod(stage: Stage) -> None:
    stage.cluster.create(stage.path("deployments"), deployment("ended", 1, annotations={"test/exit-after": "0s"}))
    actuator = stage.actuator("ended")
    (first,) = (await until(actuator, ready(1))).replicas
    pods = stage.cluster.call("GET", stage.path("pods", group="api/v1") + "?labelSelector=app%3Dended")[1]["items"]
    name = pods[0]["metadata"]["name"]
    path = stage.path("pods", name, group="api/v1")
    assert stage.cluster.call("PATCH", f"{path}/status", {"status": {"phase": "Failed"}}, MERGE)[0] == 200
    await until(actuator, lambda seen: phases(seen) == [Phase.FAILED, Phase.READY])
    await act(actuator, Stop(POOL, first.fact.id, 1, "failed"))
    await stage.eventually(lambda: stage.cluster.call("GET", path)[0] == 404, "the remains are gone")


async def controller_hears_that_no_node_is_to_be_had(stage: Stage) -> None:
    stage.cluster.create(stage.path("deployments"), deployment("huge", 1, gpus=64))
    await until(stage.actuator("huge", full_s=1.0), _is_full)


def _is_full(seen: Observation) -> bool:
    return bool(seen.full)


async def controller_leads(stage: Stage) -> None:
    """The Lease is looked for, made, and given back."""
    settings = LeaseSettings()
    store = KubernetesLease(InCluster(stage.pods["controller"]), settings, "tidegate")
    loop = LeaderLoop(settings, "a", store)
    task = asyncio.create_task(loop.run())
    try:
        await stage.eventually(loop.leads, "a leader")
        task.cancel()
        await loop.give_back()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


async def placeholders_hold_room(stage: Stage) -> None:
    stage.cluster.create(stage.path("deployments"), deployment("roomy", 1))
    nodes = {"type": "placeholder", "deployment": "tidegate-placeholders", "headroom": 1}
    await until(stage.actuator("roomy", nodes=nodes), ready(1))
    path = stage.path("deployments", "tidegate-placeholders")
    await stage.eventually(lambda: stage.cluster.call("GET", path)[0] == 200, "the placeholders")
    await stage.eventually(
        lambda: stage.cluster.call("GET", path)[1].get("status", {}).get("readyReplicas") == 1, "one that is ready"
    )


async def a_buffer_holds_room(stage: Stage) -> None:
    group = "apis/autoscaling.x-k8s.io/v1beta1"
    body = {"apiVersion": group[5:], "kind": "CapacityBuffer", "metadata": {"name": "room"}, "spec": {"replicas": 0}}
    stage.cluster.create(stage.path("capacitybuffers", group=group), body)
    stage.cluster.create(stage.path("deployments"), deployment("buffered", 1))
    await until(
        stage.actuator("buffered", nodes={"type": "capacity_buffer", "buffer": "room", "headroom": 2}), ready(1)
    )
    path = stage.path("capacitybuffers", "room", group)
    assert stage.cluster.call("GET", path)[1]["spec"]["replicas"] == 2


async def a_group_of_nodes_shrinks(stage: Stage, kind: str) -> None:
    """One node is cordoned, its last pod asked to go elsewhere, and the number lowered."""
    cluster, name = stage.cluster, f"{kind.replace('_', '-')}-node"
    cluster.add_node(name, labels={"karpenter.sh/nodepool": "group"} if kind == "karpenter" else {})
    if kind == "karpenter":
        collection, version = "/apis/karpenter.sh/v1/nodepools", "karpenter.sh/v1"
        body = {"apiVersion": version, "kind": "NodePool", "metadata": {"name": "group"}, "spec": {"replicas": 1}}
    else:
        group = "apis/cluster.x-k8s.io/v1beta2"
        collection, version = stage.path("machinedeployments", group=group), group[5:]
        machine = {
            "apiVersion": version, "kind": "Machine", "status": {"nodeRef": {"name": name}},
            "metadata": {"name": "one", "labels": {"cluster.x-k8s.io/deployment-name": "group"}},
        }  # fmt: skip
        cluster.create(stage.path("machines", group=group), machine)
        body = {
            "apiVersion": version,
            "kind": "MachineDeployment",
            "metadata": {"name": "group"},
            "spec": {"replicas": 1},
        }
    cluster.create(collection, body)
    guest = {
        "metadata": {"name": f"guest-of-{name}", "annotations": {"test/exit-after": "0s"}},
        "spec": {"nodeName": name, "containers": [{"name": "a", "image": "a:1"}]},
    }
    cluster.create("/api/v1/namespaces/default/pods", guest)
    await stage.eventually(lambda: cluster.node_ready(name), "the node")
    cluster.create(stage.path("deployments"), deployment(f"on-{name}", 0))
    actuator = stage.actuator(f"on-{name}", nodes={"type": kind, "name": "group", "headroom": 0})
    await until(actuator, lambda _: cluster.call("GET", f"{collection}/group")[1]["spec"]["replicas"] == 0)
    assert cluster.call("GET", f"/api/v1/nodes/{name}")[1]["spec"]["unschedulable"] is True


async def karpenter_releases_a_node(stage: Stage) -> None:
    await a_group_of_nodes_shrinks(stage, "karpenter")


async def cluster_api_releases_a_node(stage: Stage) -> None:
    await a_group_of_nodes_shrinks(stage, "cluster_api")
