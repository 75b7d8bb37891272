"""Replicas that are pods: of Deployments, StatefulSets, or whatever else has the scale subresource.

Pure: `pods` (a pod as a replica), `removal` (which pod goes), `ledger` (what was asked for), `marks`, `ownership`,
`budgets`, `full`, `nodes`. Calls: `workload` (one object and its pods), `side` (one kind of replica), `headroom` and
`groups` (nodes), `report` (events and conditions), `pool` (the actuator).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autoscaler.actuators.kubernetes.groups import NodeGroup
from autoscaler.actuators.kubernetes.headroom import Buffer, Placeholders
from autoscaler.actuators.kubernetes.nodes import NodePool
from autoscaler.actuators.kubernetes.pool import KubernetesActuator
from autoscaler.actuators.kubernetes.report import Reporter
from autoscaler.policy.kubernetes import BufferNodes, KubernetesSettings, PlaceholderNodes
from autoscaler.policy.pools import Mode, PoolSettings
from lb.clock import Clock
from lb.errors import SettingsError
from lb.kube import Access, InCluster, KubeApi, KubeConfig
from lb.kube.access import own_namespace

__all__ = ["CALL_S", "KubernetesActuator", "build"]

CALL_S = 4.0
"""Deadline of one call: what lies between a leader's fence and the next one's first act (15 s less 10 s), less a
second. The API server answers what we ask in milliseconds."""


def build(
    pool: PoolSettings, settings: KubernetesSettings, clock: Clock, may_act: Callable[[], bool], directory: Path,
    access: Access | None = None,
) -> KubernetesActuator:  # fmt: skip
    """The actuator that a pool's settings ask for. Raises SettingsError if it cannot know its namespace."""
    if access is None:
        access = InCluster() if settings.kubeconfig is None else KubeConfig(directory / settings.kubeconfig)
    namespace = settings.namespace or own_namespace(access)
    if not namespace:
        raise SettingsError(f"pool {pool.name}: outside of a cluster, actuator.namespace must say where the pods are")
    api = KubeApi(access, deadline_s=CALL_S)
    reporter = Reporter(api.for_pool(), own_namespace(access) or namespace, settings.field_manager, clock)
    made: list[KubernetesActuator] = []
    nodes: NodePool | None = None
    manager, ahead = settings.field_manager, settings.nodes
    if isinstance(ahead, PlaceholderNodes):
        nodes = Placeholders(
            ahead,
            api,
            namespace,
            manager,
            clock,
            pool=pool.name,
            most=pool.max_replicas,
            target=lambda: made[0].target(),
        )
    elif isinstance(ahead, BufferNodes):
        nodes = Buffer(ahead, api, namespace, manager, clock, most=pool.max_replicas)
    elif ahead is not None:
        nodes = NodeGroup(ahead, api, namespace, manager, settings.gpu_resource)
    actuator = KubernetesActuator(
        pool.name, settings, api, namespace, clock, may_act=may_act, owns=pool.mode is Mode.OWN, nodes=nodes,
        reporter=reporter, closes=True,
    )  # fmt: skip
    made.append(actuator)
    return actuator
