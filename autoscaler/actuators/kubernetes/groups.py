"""Groups of nodes whose number the controller writes: static Karpenter NodePools, Cluster API MachineDeployments.

The number is raised before the replicas are asked for. It is lowered only by nodes that were cordoned, emptied by
evictions that honour disruption budgets, and seen empty again: Karpenter takes empty nodes first, Cluster API those
whose Machine carries `cluster.x-k8s.io/delete-machine`.
"""

from __future__ import annotations

from typing import Any

from autoscaler.actuator import ActuatorError, Observation
from autoscaler.actuators.kubernetes import number, objects
from autoscaler.actuators.kubernetes.nodes import DAEMON_OWNERS, GroupNode, Step, Use, alive, needed_nodes, plan, use_of
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.pods import is_active
from autoscaler.actuators.kubernetes.workload import failed
from autoscaler.policy.kubernetes import StaticNodes
from lb.kube import ConflictError, KubeApi, KubeError, NotFoundError

RELEASED = "tidegate.dev/released"
"""On a node that we cordoned, so that it is known after a restart and nobody else's cordon is lifted."""
DELETE_MACHINE = "cluster.x-k8s.io/delete-machine"
_MACHINES = "cluster.x-k8s.io/deployment-name"
_KARPENTER = "karpenter.sh/nodepool"
_MOST = 5
"""Nodes looked at for release in one tick; the others follow."""


class NodeGroup:
    """One group, for one pool."""

    def __init__(self, settings: StaticNodes, api: KubeApi, namespace: str, manager: str, gpu_resource: str) -> None:
        self._settings = settings
        self._api = api
        self._manager = manager
        self._gpu_resource = gpu_resource
        self._namespace = settings.namespace or namespace
        self._is_karpenter = settings.type == "karpenter"
        self._version = "v1beta2"
        self._ahead = 0
        """Replicas about to be asked for, until they are seen."""

    @property
    def _path(self) -> str:
        name = self._settings.name
        if self._is_karpenter:
            return f"/apis/karpenter.sh/v1/nodepools/{name}"
        return f"/apis/cluster.x-k8s.io/{self._version}/namespaces/{self._namespace}/machinedeployments/{name}"

    async def ahead_of(self, replicas: int) -> None:
        """Remember it, and raise the number if these replicas need it."""
        self._ahead = replicas
        try:
            scale = await self._scale()
            needed = self._needed(replicas)
            if needed > objects.count(scale, "spec", "replicas"):
                await self._write(scale, needed)
        except KubeError as error:
            raise failed(f"nodes {self._settings.name}", error) from None

    async def settle(self, seen: Observation) -> None:
        """One step towards what the replicas need."""
        replicas = alive(seen)
        # What was asked for and is no pod yet still needs its node.
        self._ahead = self._ahead if self._ahead > replicas else 0
        try:
            scale = await self._scale()
            size = objects.count(scale, "spec", "replicas")
            needed = self._needed(max(replicas, self._ahead))
            nodes = await self._nodes() if needed <= size else []
            await self._do(plan(size, needed, nodes), scale)
        except KubeError as error:
            raise failed(f"nodes {self._settings.name}", error) from None

    def _needed(self, replicas: int) -> int:
        settings = self._settings
        return needed_nodes(replicas, settings.replicas_per_node, settings.headroom, settings.max_nodes)

    async def _scale(self) -> Object:
        try:
            return await self._api.get(f"{self._path}/scale")
        except NotFoundError as error:
            if self._is_karpenter or self._version == "v1beta1":
                raise ActuatorError(f"{self._settings.type} {self._settings.name} does not exist: {error}") from None
            self._version = "v1beta1"  # Cluster API before 1.11
            return await self._scale()

    async def _write(self, scale: Object, size: int) -> None:
        version, name = objects.version(scale), self._settings.name
        try:
            await number.write(self._api, self._path, size, name=name, version=version, manager=self._manager)
        except ConflictError as error:
            raise ActuatorError(f"nodes {self._settings.name} changed meanwhile, decided anew: {error}") from None

    # ------------------------------------------------------------------ nodes

    async def _nodes(self) -> list[GroupNode]:
        if self._is_karpenter:
            listed = await self._api.list_all("/api/v1/nodes", {"labelSelector": f"{_KARPENTER}={self._settings.name}"})
            known: list[tuple[str, Object]] = [(objects.name(node), node) for node in listed.items]
        else:
            path = f"/apis/cluster.x-k8s.io/{self._version}/namespaces/{self._namespace}/machines"
            machines = await self._api.list_all(path, {"labelSelector": f"{_MACHINES}={self._settings.name}"})
            known = [(objects.name(one), await self._node_of(one)) for one in machines.items]
        # Those that we hold first: they are closest to their release.
        known.sort(key=lambda one: (not _ours(one[1]), one[0]))
        found: list[GroupNode] = []
        for member, node in known:
            looked = len([one for one in found if one.use is not Use.BUSY])
            use = Use.BUSY if looked >= _MOST and not _ours(node) else await self._use(node)
            found.append(GroupNode(objects.name(node), member, _ours(node), use))
        return found

    async def _node_of(self, machine: Object) -> Object:
        name = objects.text(machine, "status", "nodeRef", "name")
        if not name:
            return {}
        try:
            return await self._api.get(f"/api/v1/nodes/{name}")
        except NotFoundError:
            return {}

    async def _pods_on(self, node: str) -> tuple[Object, ...]:
        return (await self._api.list_all("/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"})).items

    async def _use(self, node: Object) -> Use:
        if not objects.name(node):
            return Use.EMPTY
        return use_of(await self._pods_on(objects.name(node)), self._gpu_resource)

    # ------------------------------------------------------------------ steps

    async def _do(self, step: Step, scale: Object) -> None:
        for name in step.uncordon:
            await self._cordon(name, False)
        for name in step.cordon:
            await self._cordon(name, True)
        for name in step.evict_on:
            await self._evict_from(name)
        if step.size is not None:
            if not self._is_karpenter:
                for node in step.release:
                    await self._mark_machine(node.member)
            await self._write(scale, step.size)

    async def _cordon(self, name: str, cordoned: bool) -> None:
        """Applied under our name, so that to lift it takes back what we set and nothing else."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        if cordoned:
            body["metadata"]["annotations"] = {RELEASED: self._settings.name}
            body["spec"] = {"unschedulable": True}
        await self._api.apply(f"/api/v1/nodes/{name}", body, field_manager=f"{self._manager}-nodes", force=True)

    async def _evict_from(self, node: str) -> None:
        for pod in await self._pods_on(node):
            owners = objects.items(pod, "metadata", "ownerReferences")
            if not is_active(pod) or any(owner.get("kind") in DAEMON_OWNERS for owner in owners):
                continue
            name, namespace = objects.name(pod), objects.text(pod, "metadata", "namespace")
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": namespace},
                "deleteOptions": {"preconditions": {"uid": objects.uid(pod)}},
            }
            try:
                await self._api.create(f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body)
            except (NotFoundError, ConflictError):
                continue
            except KubeError as error:
                if "DisruptionBudget" in error.causes:
                    raise ActuatorError(f"node {node} cannot be emptied: a disruption budget keeps {name}") from None
                raise

    async def _mark_machine(self, name: str) -> None:
        body = {
            "apiVersion": f"cluster.x-k8s.io/{self._version}",
            "kind": "Machine",
            "metadata": {"name": name, "namespace": self._namespace, "annotations": {DELETE_MACHINE: "yes"}},
        }
        path = f"/apis/cluster.x-k8s.io/{self._version}/namespaces/{self._namespace}/machines/{name}"
        await self._api.apply(path, body, field_manager=self._manager, force=True)


def _ours(node: Object) -> bool:
    return RELEASED in objects.notes(node) and objects.part(node, "spec").get("unschedulable") is True
