"""Room held ahead of replicas so that whoever adds nodes adds them early: placeholder pods, or a CapacityBuffer.

A placeholder asks for what one replica asks for and has a priority below zero: a replica takes its place at once, and
the placeholder, pending then, makes cluster-autoscaler or Karpenter add the next node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autoscaler.actuator import ActuatorError, Observation
from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.workload import failed
from autoscaler.policy.kubernetes import BufferNodes, PlaceholderNodes
from lb.clock import Clock
from lb.kube import KubeApi, KubeError

_AGAIN_S = 300.0
"""What was applied is applied again after this time, in case somebody removed it."""
_WHERE = ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "runtimeClassName", "schedulerName")
"""Parts of a pod's specification that say where it can run."""


def room_of(template: Object) -> dict[str, dict[str, str]]:
    """Resources that a replica of this template takes, as one container would ask for them.

    Raises ActuatorError if the template asks for nothing: a placeholder of no size holds no room.
    """
    room: dict[str, dict[str, str]] = {}
    containers = objects.items(template, "spec", "containers")
    for which in ("requests", "limits"):
        for container in containers:
            for resource, amount in objects.part(container, "resources", which).items():
                held = room.setdefault(which, {})
                known = held.get(resource)
                both = objects.quantity(known) + objects.quantity(amount)
                held[resource] = str(amount) if known is None else f"{both:.3f}".rstrip("0").rstrip(".")
    if not room:
        raise ActuatorError("the workload's pods ask for no resources, so nothing can hold a place of their size")
    return room


def placeholder(
    template: Object, settings: PlaceholderNodes, namespace: str, replicas: int, owner: str
) -> dict[str, Any]:
    """The Deployment of placeholders, for server-side apply."""
    labels = {"app.kubernetes.io/managed-by": "tidegate", "tidegate.dev/placeholder-of": owner}
    spec: dict[str, Any] = {key: value for key, value in objects.part(template, "spec").items() if key in _WHERE}
    spec |= {
        "priorityClassName": settings.priority_class,
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "containers": [{"name": "placeholder", "image": settings.image, "resources": room_of(template)}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": settings.deployment, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


class Placeholders:
    """`template`: the pod template of the workload whose replicas they hold a place for; `most`: replicas that the pool
    may have at all, beyond which there is nothing to hold."""

    def __init__(
        self, settings: PlaceholderNodes, api: KubeApi, namespace: str, manager: str, clock: Clock, *,
        pool: str, most: int, target: Callable[[], Object],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._api = api
        self._namespace = namespace
        self._manager = manager
        self._clock = clock
        self._pool = pool
        self._most = most
        self._target = target
        self._applied: tuple[dict[str, Any], float] | None = None

    async def ahead_of(self, replicas: int) -> None:
        """Nothing: replicas take the placeholders' room by themselves."""

    async def settle(self, seen: Observation) -> None:
        replicas = max(0, min(self._settings.headroom, self._most - len(seen.replicas)))
        template = objects.part(self._target(), "spec", "template")
        body = placeholder(template, self._settings, self._namespace, replicas, self._pool)
        now = self._clock.monotonic()
        if self._applied is not None and self._applied[0] == body and now - self._applied[1] < _AGAIN_S:
            return
        path = f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{self._settings.deployment}"
        try:
            await self._api.apply(path, body, field_manager=self._manager, force=True)
        except KubeError as error:
            raise failed(f"placeholders {self._settings.deployment}", error) from None
        self._applied = (body, now)


class Buffer:
    """Writes `spec.replicas` of a CapacityBuffer."""

    def __init__(
        self, settings: BufferNodes, api: KubeApi, namespace: str, manager: str, clock: Clock, *, most: int
    ) -> None:
        self._settings = settings
        self._api = api
        self._namespace = namespace
        self._manager = manager
        self._clock = clock
        self._most = most
        self._applied: tuple[int, float] | None = None

    async def ahead_of(self, replicas: int) -> None:
        """Nothing: the buffer gives its room to whoever comes."""

    async def settle(self, seen: Observation) -> None:
        replicas = max(0, min(self._settings.headroom, self._most - len(seen.replicas)))
        now = self._clock.monotonic()
        if self._applied is not None and self._applied[0] == replicas and now - self._applied[1] < _AGAIN_S:
            return
        path = (
            f"/apis/autoscaling.x-k8s.io/v1beta1/namespaces/{self._namespace}/capacitybuffers/{self._settings.buffer}"
        )
        body = {
            "apiVersion": "autoscaling.x-k8s.io/v1beta1",
            "kind": "CapacityBuffer",
            "metadata": {"name": self._settings.buffer, "namespace": self._namespace},
            "spec": {"replicas": replicas},
        }
        try:
            await self._api.get(path)  # apply would make one that names no pod template
            await self._api.apply(path, body, field_manager=self._manager, force=True)
        except KubeError as error:
            raise failed(f"CapacityBuffer {self._settings.buffer}", error) from None
        self._applied = (replicas, now)
