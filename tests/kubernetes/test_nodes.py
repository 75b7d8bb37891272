"""Nodes ahead of their pods: placeholders and static groups under Karpenter, MachineDeployments, buffers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from autoscaler.action import Drain, GiveUp, Stop
from autoscaler.actuator import ActuatorError
from autoscaler.actuators.kubernetes.groups import DELETE_MACHINE, RELEASED, NodeGroup
from autoscaler.actuators.kubernetes.headroom import Buffer, Placeholders
from autoscaler.fleet import Phase, Stage
from autoscaler.policy.kubernetes import BufferNodes, PlaceholderNodes, StaticNodes
from lb.clock import SYSTEM_CLOCK
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.fault_proxy import FaultProxy
from tests.kubernetes.karpenter import NODE_POOLS, node_pool, pool_is_ready
from tests.kubernetes.manifests import custom_resource
from tests.kubernetes.scaled import MERGE, POOL, Scene, phases, ready, settings_of, until, up

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CAPI = "cluster.x-k8s.io/v1beta2"


@pytest.fixture
async def scene(cluster: Cluster, namespace: str) -> AsyncIterator[Scene]:
    made = Scene(cluster, namespace)
    yield made
    await made.close()


@pytest.fixture
async def grown(karpenter: Cluster) -> AsyncIterator[Scene]:
    """A namespace where Karpenter makes the nodes."""
    made = Scene(karpenter, karpenter.add_namespace())
    yield made
    await made.close()
    karpenter.remove_namespace(made.namespace)


@pytest.fixture
def gpu_pool(karpenter: Cluster) -> Iterator[str]:
    karpenter.create(NODE_POOLS, node_pool("gpu", gpus=32))
    karpenter.eventually(lambda: pool_is_ready(karpenter, "gpu"), "the NodePool", 20)
    yield "gpu"
    karpenter.call("DELETE", f"{NODE_POOLS}/gpu")
    karpenter.eventually(lambda: karpenter.call("GET", f"{NODE_POOLS}/gpu")[0] == 404, "no NodePool", 60)


def nodes_of(cluster: Cluster, pool: str) -> list[dict[str, Any]]:
    selector = f"labelSelector=karpenter.sh%2Fnodepool%3D{pool}"
    found: list[dict[str, Any]] = cluster.call("GET", f"/api/v1/nodes?{selector}")[1]["items"]
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


async def test_a_placeholder_brings_a_node_that_the_next_replica_takes_at_once(grown: Scene, gpu_pool: str) -> None:
    cluster = grown.cluster
    priority = {"metadata": {"name": "tidegate-placeholder"}, "value": -10, "preemptionPolicy": "Never"}
    cluster.create("/apis/scheduling.k8s.io/v1/priorityclasses", priority)
    grown.deploy("llm", 0, gpus=8)
    settings = PlaceholderNodes(type="placeholder", deployment="ahead", headroom=1)
    made: list[Any] = []
    placeholders = Placeholders(
        settings, grown.api(), grown.namespace, "tidegate", SYSTEM_CLOCK, pool=POOL, most=10,
        target=lambda: made[0].target(),
    )  # fmt: skip
    actuator = grown.actuator(nodes=placeholders)
    made.append(actuator)
    await actuator.observe()
    pods = f"/api/v1/namespaces/{grown.namespace}/pods?labelSelector=tidegate.dev%2Fplaceholder-of%3D{POOL}"

    def held() -> list[dict[str, Any]]:
        return [one for one in cluster.call("GET", pods)[1]["items"] if one["status"]["phase"] == "Running"]

    await grown.eventually(lambda: len(held()) == 1, "a placeholder on a node that Karpenter made", 40)
    (placeholder,) = held()
    assert placeholder["spec"]["priority"] == -10
    assert placeholder["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert len(nodes_of(cluster, gpu_pool)) == 1
    began = time.monotonic()
    await actuator.apply(up(1, "a"))
    seen = await until(actuator, ready(1))
    took_s = time.monotonic() - began
    (pod,) = grown.pods().values()
    assert pod["spec"]["nodeName"] == placeholder["spec"]["nodeName"], "the replica took the placeholder's room"
    assert seen.replicas[0].fact.stages[Stage.GPU] <= seen.at
    await grown.eventually(lambda: len(held()) == 1 and len(nodes_of(cluster, gpu_pool)) == 2, "the next node", 40)
    print(f"a replica on the room of a placeholder was ready after {took_s:.2f} s")
    cluster.call("DELETE", f"/apis/apps/v1/namespaces/{grown.namespace}/deployments/ahead")


async def test_j15_what_karpenter_cannot_make_is_full_and_pending_pods_are_no_capacity(
    grown: Scene, gpu_pool: str
) -> None:
    grown.deploy("llm", 0, gpus=8)
    actuator = grown.actuator(settings_of("llm", full_s=3600))
    await actuator.apply(up(5, *"abcde"))
    seen = await until(
        actuator, lambda seen: phases(seen).count(Phase.READY) == 4 and seen.full == {"default"}, within_s=60.0
    )
    assert phases(seen).count(Phase.STARTING) == 1
    (waiting,) = (one for one in seen.replicas if one.fact.phase is Phase.STARTING)
    assert Stage.NODE not in waiting.fact.stages
    await actuator.apply(GiveUp(POOL, waiting.fact.start_id, waiting.fact.id, 4, "sold out"))
    await until(actuator, lambda seen: ready(4)(seen) and not seen.full)


async def test_a_static_pool_of_karpenter_grows_before_its_pods_and_shrinks_only_by_empty_nodes(grown: Scene) -> None:
    cluster = grown.cluster
    cluster.create(NODE_POOLS, node_pool("static", nodes=0))
    await grown.eventually(lambda: pool_is_ready(cluster, "static"), "the NodePool", 20)
    grown.deploy("llm", 0, gpus=8, nodeSelector={"karpenter.sh/nodepool": "static"})
    group = NodeGroup(
        StaticNodes(type="karpenter", name="static", max_nodes=3), grown.api(), grown.namespace, "tidegate",
        "nvidia.com/gpu",
    )  # fmt: skip
    actuator = grown.actuator(nodes=group)

    def size() -> int:
        found: int = cluster.call("GET", f"{NODE_POOLS}/static")[1]["spec"].get("replicas", 0)
        return found

    await actuator.apply(up(2, "a", "b"))
    assert size() == 2
    seen = await until(actuator, ready(2), 60.0)
    assert len(nodes_of(cluster, "static")) == 2
    busy = {pod["spec"]["nodeName"] for pod in grown.pods().values()}
    assert len(busy) == 2
    victim, kept = (one.fact.id for one in seen.replicas)
    stays = grown.pods()[kept]["spec"]["nodeName"]
    await actuator.apply(Drain(POOL, victim, 60.0, "r"))
    for _ in range(3):
        await actuator.observe()
    assert size() == 2, "a node with a replica that drains is not given back"
    await actuator.apply(Stop(POOL, victim, 1, "drained"))
    await until(actuator, lambda _: size() == 1, 30.0)
    await grown.eventually(
        lambda: [one["metadata"]["name"] for one in nodes_of(cluster, "static")] == [stays],
        "the empty node is gone",
        60,
    )
    assert kept in grown.pods()
    await actuator.apply(Stop(POOL, kept, 0, "drained"))
    await until(actuator, lambda _: size() == 0, 30.0)
    cluster.call("DELETE", f"{NODE_POOLS}/static")


class Machines:
    """A MachineDeployment whose controller is this test: kwok plays its nodes."""

    def __init__(self, scene: Scene, count: int) -> None:
        self.scene = scene
        self.cluster = scene.cluster
        self.base = f"/apis/{CAPI}/namespaces/{scene.namespace}"
        for kind, scale in (("MachineDeployment", True), ("Machine", False)):
            manifest = custom_resource("cluster.x-k8s.io", "v1beta2", kind, scale=scale)
            if self.cluster.call("GET", f"{CRDS}/{kind.lower()}s.cluster.x-k8s.io")[0] != 200:
                self.cluster.create(CRDS, manifest)
        self.cluster.eventually(lambda: self.cluster.call("GET", f"{self.base}/machines")[0] == 200, "machines", 20)
        group = {
            "apiVersion": CAPI,
            "kind": "MachineDeployment",
            "metadata": {"name": "g"},
            "spec": {"replicas": count},
        }
        self.cluster.create(f"{self.base}/machinedeployments", group)
        self.nodes: list[str] = []
        self.resize()

    def size(self) -> int:
        found: int = self.cluster.call("GET", f"{self.base}/machinedeployments/g")[1]["spec"]["replicas"]
        return found

    def marked(self) -> list[str]:
        listed = self.cluster.call("GET", f"{self.base}/machines")[1]["items"]
        return [one["metadata"]["name"] for one in listed if DELETE_MACHINE in one["metadata"].get("annotations", {})]

    def resize(self, gpus: int = 8) -> None:
        """What the controller of Cluster API does: machines with nodes, and the marked ones go first."""
        while len(self.nodes) < self.size():
            name = f"{self.scene.namespace}-m{len(self.nodes)}"
            self.cluster.add_node(name, labels={"pool": self.scene.namespace}, gpus=gpus)
            machine = {
                "apiVersion": CAPI, "kind": "Machine", "status": {"nodeRef": {"name": name}},
                "metadata": {"name": name, "labels": {"cluster.x-k8s.io/deployment-name": "g"}},
            }  # fmt: skip
            self.cluster.create(f"{self.base}/machines", machine)
            self.cluster.eventually(lambda name=name: self.cluster.node_ready(name), "the node", 10)  # type: ignore[misc]
            self.nodes.append(name)
        for name in self.marked()[: len(self.nodes) - self.size()]:
            self.cluster.call("DELETE", f"{self.base}/machines/{name}")
            self.cluster.call("DELETE", f"/api/v1/nodes/{name}")
            self.nodes.remove(name)

    def group(self, **settings: Any) -> NodeGroup:
        made = StaticNodes.model_validate({"type": "cluster_api", "name": "g", **settings})
        return NodeGroup(made, self.scene.api(), self.scene.namespace, "tidegate", "nvidia.com/gpu")

    def cordoned(self) -> set[str]:
        found = set()
        for name in self.nodes:
            node = self.cluster.call("GET", f"/api/v1/nodes/{name}")[1]
            if node["spec"].get("unschedulable"):
                assert node["metadata"]["annotations"][RELEASED] == "g"
                found.add(name)
        return found


async def test_a_machine_is_emptied_marked_and_only_then_given_back(scene: Scene) -> None:
    machines = Machines(scene, 2)
    scene.deploy("llm", 1, gpus=8, nodeSelector={"pool": scene.namespace})
    actuator = scene.actuator()
    await until(actuator, ready(1))
    (pod,) = scene.pods().values()
    busy, idle = pod["spec"]["nodeName"], next(one for one in machines.nodes if one != pod["spec"]["nodeName"])
    guest = {
        "metadata": {"name": "guest", "labels": {"app": "guest"}, "annotations": {"test/exit-after": "0s"}},
        "spec": {"nodeName": idle, "containers": [{"name": "a", "image": "a:1"}]},
    }
    scene.cluster.create(f"/api/v1/namespaces/{scene.namespace}/pods", guest)
    budgets = f"/apis/policy/v1/namespaces/{scene.namespace}/poddisruptionbudgets"
    keep = {
        "metadata": {"name": "guest"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guest"}}},
    }
    scene.cluster.create(budgets, keep)
    await scene.eventually(lambda: scene.pods("guest") != {}, "the guest runs")
    group = machines.group()
    seen = await actuator.observe()
    await group.settle(seen)
    assert machines.cordoned() == {idle}
    await scene.eventually(lambda: "status" in scene.cluster.call("GET", f"{budgets}/guest")[1], "the budget")
    with pytest.raises(ActuatorError, match="a disruption budget keeps guest"):
        await group.settle(seen)
    assert (machines.size(), machines.marked()) == (2, [])
    scene.cluster.call("DELETE", f"{budgets}/guest")
    async with asyncio.timeout(20):
        while machines.size() == 2:
            await group.settle(seen)
    assert machines.marked() == [idle]
    machines.resize()
    assert machines.nodes == [busy]
    for _ in range(3):
        await group.settle(seen)
    assert machines.size() == 1, "the node with the replica stays"
    assert machines.cordoned() == set()


async def test_a_cordoned_node_is_taken_back_when_its_replica_is_wanted_again(scene: Scene) -> None:
    machines = Machines(scene, 1)
    scene.deploy("llm", 0, gpus=8, nodeSelector={"pool": scene.namespace})
    actuator = scene.actuator(nodes=machines.group())
    await until(actuator, lambda _: machines.cordoned() == set(machines.nodes))
    await actuator.apply(up(1, "a"))
    await until(actuator, ready(1))
    assert machines.cordoned() == set()
    assert (machines.size(), machines.marked()) == (1, [])


async def test_a_cordon_of_somebody_else_is_left_alone(scene: Scene) -> None:
    machines = Machines(scene, 1)
    scene.deploy("llm", 1, gpus=8, nodeSelector={"pool": scene.namespace})
    actuator = scene.actuator(nodes=machines.group())
    await until(actuator, ready(1))
    path = f"/api/v1/nodes/{machines.nodes[0]}?fieldManager=kubectl-cordon"
    scene.cluster.call("PATCH", path, {"spec": {"unschedulable": True}}, MERGE)
    for _ in range(2):
        await actuator.observe()
    node = scene.cluster.call("GET", path)[1]
    assert node["spec"]["unschedulable"] is True
    assert RELEASED not in node["metadata"].get("annotations", {})


async def test_j18_nodes_that_came_and_a_number_that_could_not_be_written_converge(scene: Scene) -> None:
    machines = Machines(scene, 0)
    scene.deploy("llm", 0, gpus=8, nodeSelector={"pool": scene.namespace})
    async with FaultProxy(scene.cluster) as proxy:
        actuator = scene.actuator(nodes=machines.group(), access=scene.cluster.access(url=proxy.url))
        await actuator.observe()
        proxy.refused = "/deployments/llm/scale"
        with pytest.raises(ActuatorError):
            await actuator.apply(up(1, "a"))
        assert (machines.size(), scene.replicas()) == (1, 0)
        proxy.refused = None
        machines.resize()
        async with asyncio.timeout(30):
            while scene.replicas() == 0:
                try:
                    await actuator.apply(up(1, "a"))
                except ActuatorError:
                    await asyncio.sleep(0.5)
        await until(actuator, ready(1), 40.0)
        assert machines.size() == 1


async def test_j16_a_node_without_gpus_is_no_node_for_a_replica_until_it_has_them(scene: Scene) -> None:
    """A node is Ready minutes before its driver and device plugin are: its GPUs cannot be allocated."""
    machines = Machines(scene, 0)
    scene.deploy("llm", 0, gpus=8, nodeSelector={"pool": scene.namespace})
    actuator = scene.actuator(nodes=machines.group())
    await actuator.apply(up(1, "a"))
    machines.resize(gpus=0)
    seen = await until(
        actuator, lambda seen: "Insufficient nvidia.com/gpu" in "".join(one.detail for one in seen.replicas)
    )
    assert phases(seen) == [Phase.STARTING]
    assert not {Stage.NODE, Stage.GPU} & seen.replicas[0].fact.stages.keys()
    gpus = {"nvidia.com/gpu": "8"}
    body = {"status": {"allocatable": gpus, "capacity": gpus}}
    assert scene.cluster.call("PATCH", f"/api/v1/nodes/{machines.nodes[0]}/status", body, MERGE)[0] == 200
    seen = await until(actuator, ready(1))
    stages = seen.replicas[0].fact.stages
    assert stages[Stage.GPU] >= stages[Stage.NODE]
    late = seen.replicas[0].fact.id
    await actuator.apply(GiveUp(POOL, "a", late, 0, "late"))
    assert scene.replicas() == 1, "it became ready, so it is left alone"


async def test_j16_a_start_whose_node_never_comes_gives_its_node_back(scene: Scene) -> None:
    machines = Machines(scene, 0)
    scene.deploy("llm", 0, gpus=8, nodeSelector={"pool": scene.namespace})
    actuator = scene.actuator(nodes=machines.group())
    await actuator.apply(up(1, "a"))
    assert machines.size() == 1
    seen = await until(actuator, lambda seen: phases(seen) == [Phase.STARTING])
    machines.cluster.create(
        f"{machines.base}/machines",
        {
            "apiVersion": CAPI, "kind": "Machine",
            "metadata": {"name": "stillborn", "labels": {"cluster.x-k8s.io/deployment-name": "g"}},
        },
    )  # fmt: skip
    await actuator.apply(GiveUp(POOL, "a", seen.replicas[0].fact.id, 0, "not ready after 900 s"))
    await until(actuator, lambda _: machines.size() == 0, 30.0)
    assert machines.marked() == ["stillborn"]


async def test_a_buffer_says_how_many_replicas_should_find_room(scene: Scene) -> None:
    group = "autoscaling.x-k8s.io"
    base = f"/apis/{group}/v1beta1/namespaces/{scene.namespace}/capacitybuffers"
    if scene.cluster.call("GET", f"{CRDS}/capacitybuffers.{group}")[0] != 200:
        scene.cluster.create(CRDS, custom_resource(group, "v1beta1", "CapacityBuffer"))
    await scene.eventually(lambda: scene.cluster.call("GET", base)[0] == 200, "buffers")
    scene.deploy("llm", 1)
    settings = BufferNodes(type="capacity_buffer", buffer="room", headroom=3)
    buffer = Buffer(settings, scene.api(), scene.namespace, "tidegate", SYSTEM_CLOCK, most=3)
    seen = await until(scene.actuator(), ready(1))
    with pytest.raises(ActuatorError, match="CapacityBuffer room"):
        await buffer.settle(seen)
    body = {"apiVersion": f"{group}/v1beta1", "kind": "CapacityBuffer", "metadata": {"name": "room"}, "spec": {}}
    scene.cluster.create(base, body)
    await buffer.settle(seen)
    assert scene.cluster.call("GET", f"{base}/room")[1]["spec"]["replicas"] == 2, "3 wanted, 2 more allowed"
