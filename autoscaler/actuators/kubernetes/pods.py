"""A pod as a replica: its phase, the milestones of its start, why it waits. Pure.

Instants in pods are wall-clock seconds of other machines; they are turned into the controller's monotonic clock by
`offset_s` (monotonic minus wall) and never lie in the future. A milestone that has no time stamp is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.actuator import Observed
from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.fleet import Phase, ReplicaFact, Stage
from lb.endpoint import Endpoint

START_ID = "tidegate.dev/start-id"
"""Name under which the controller asked for it."""
PROTECTED = "tidegate.dev/protected"
"""An operator's mark: `true` keeps the pod from being removed."""
_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"})
"""Reasons to wait that do not pass by themselves."""
_PULLING = frozenset({"ImagePullBackOff", "ErrImagePull", "RegistryUnavailable"})


@dataclass(frozen=True, slots=True)
class Reading:
    """How pods are read."""

    kind: str
    now: float
    """Monotonic seconds."""
    offset_s: float
    """Monotonic minus wall clock."""
    gpu_resource: str
    crashes: int
    pull_s: float
    port: int | None = None
    weights_condition: str | None = None

    def instant(self, stamp: object) -> float | None:
        """Monotonic instant of an API time stamp, at the latest now."""
        seconds = objects.epoch_s(stamp)
        return None if seconds is None else min(self.now, seconds + self.offset_s)


def is_active(pod: Object) -> bool:
    """Whether its controller counts it: not ended, and not told to."""
    return not objects.text(pod, "metadata", "deletionTimestamp") and not is_over(pod)


def is_over(pod: Object) -> bool:
    """Ended by itself, evicted by its node, or preempted; its controller has replaced it."""
    return objects.text(pod, "status", "phase") in ("Failed", "Succeeded")


def is_ready(pod: Object) -> bool:
    return objects.holds(pod, "Ready") and is_active(pod)


def waits_for_a_node(pod: Object) -> Object:
    """The condition by which the scheduler says that no node takes it; empty otherwise."""
    if not is_active(pod):
        return {}
    scheduled = objects.condition(pod, "PodScheduled")
    return scheduled if scheduled.get("reason") == "Unschedulable" else {}


def gpus_of(pod: Object, resource: str) -> float:
    """GPUs that its containers ask for."""
    return sum(
        objects.quantity(objects.part(one, "resources", "limits").get(resource))
        for one in objects.items(pod, "spec", "containers")
    )


def observed(
    pod: Object, node: Object | None, reading: Reading, *, protected: bool = False, start_id: str | None = None
) -> Observed:
    """The replica that this pod is. `start_id`: its name, where it is not written on it yet."""
    phase, detail = _phase(pod, reading)
    if node is not None and phase in (Phase.STARTING, Phase.READY):
        detail = detail or _trouble_of(node, pod, reading)
    stages = _stages(pod, node, reading)
    since = {
        Phase.READY: reading.instant(objects.condition(pod, "Ready").get("lastTransitionTime")),
        Phase.STARTING: reading.instant(objects.part(pod, "metadata").get("creationTimestamp")),
        Phase.STOPPING: reading.instant(objects.part(pod, "metadata").get("deletionTimestamp")),
    }.get(phase)
    fact = ReplicaFact(
        id=objects.uid(pod), phase=phase, kind=reading.kind, start_id=objects.notes(pod).get(START_ID) or start_id,
        stages=stages, since_s=since,
        protected=protected or objects.notes(pod).get(PROTECTED) == "true",
    )  # fmt: skip
    return Observed(fact, _endpoint(pod, reading), detail)


def _phase(pod: Object, reading: Reading) -> tuple[Phase, str]:
    if objects.text(pod, "metadata", "deletionTimestamp"):
        return Phase.STOPPING, ""
    if is_over(pod):
        status = objects.part(pod, "status")
        return Phase.FAILED, f"{status.get('reason') or status.get('phase')}: {status.get('message') or 'it ended'}"
    if objects.holds(pod, "Ready"):
        return Phase.READY, ""
    failure = _failure(pod, reading)
    if failure:
        return Phase.FAILED, failure
    return Phase.STARTING, _waiting(pod)


def _containers(pod: Object) -> tuple[Object, ...]:
    return objects.items(pod, "status", "initContainerStatuses") + objects.items(pod, "status", "containerStatuses")


def _failure(pod: Object, reading: Reading) -> str:
    """Why nothing will come of it; empty: something may."""
    placed_at = reading.instant(objects.condition(pod, "PodScheduled").get("lastTransitionTime"))
    for container in _containers(pod):
        waiting = objects.part(container, "state", "waiting")
        reason = str(waiting.get("reason") or "")
        told = f"{container.get('name')}: {reason}: {str(waiting.get('message') or '')[:300]}"
        if reason in _HOPELESS:
            return told
        if reason in _PULLING and placed_at is not None and reading.now - placed_at > reading.pull_s:
            return told
        restarts = objects.count(container, "restartCount")
        if reason == "CrashLoopBackOff" and restarts >= reading.crashes:
            ended = objects.part(container, "lastState", "terminated")
            return f"{container.get('name')}: ended {restarts} times, last with exit code {ended.get('exitCode')}"
    return ""


def _waiting(pod: Object) -> str:
    unschedulable = waits_for_a_node(pod)
    if unschedulable:
        return str(unschedulable.get("message") or "no node takes it")[:300]
    for container in _containers(pod):
        waiting = objects.part(container, "state", "waiting")
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{container.get('name')}: {waiting.get('reason')}"
    return ""


def _trouble_of(node: Object, pod: Object, reading: Reading) -> str:
    """What is wrong with its node; a node that is ready and has no GPUs (yet) is of no use to it."""
    if not objects.holds(node, "Ready"):
        return f"node {objects.name(node)} is not ready"
    if gpus_of(pod, reading.gpu_resource) and not usable_gpus(node, reading.gpu_resource):
        return f"node {objects.name(node)} offers no {reading.gpu_resource} (driver or device plugin not up)"
    return ""


def usable_gpus(node: Object, resource: str) -> float:
    """GPUs that pods can get on a node now; a ready node may have none until its driver and device plugin are up."""
    if not objects.holds(node, "Ready"):
        return 0.0
    return objects.quantity(objects.part(node, "status", "allocatable").get(resource))


def _stages(pod: Object, node: Object | None, reading: Reading) -> dict[Stage, float]:
    found: dict[Stage, float] = {}

    def note(stage: Stage, at: float | None) -> None:
        # A milestone is not before the one it builds on: stamps come from several machines.
        if at is not None:
            found[stage] = max(at, max(found.values(), default=at))

    created = reading.instant(objects.part(pod, "metadata").get("creationTimestamp"))
    note(Stage.REQUESTED, created)
    scheduled = objects.condition(pod, "PodScheduled")
    if scheduled.get("status") == "True":
        placed = reading.instant(scheduled.get("lastTransitionTime"))
        node_at = placed
        if node is not None and objects.holds(node, "Ready") and created is not None:
            came = reading.instant(objects.condition(node, "Ready").get("lastTransitionTime"))
            if came is not None and placed is not None:
                node_at = min(max(came, created), placed)
        note(Stage.NODE, node_at)
        # The scheduler places a pod that wants GPUs where they can be allocated, and not before.
        note(Stage.GPU, placed)
        note(Stage.IMAGE, _started_at(pod, reading))
        if reading.weights_condition is not None and objects.holds(pod, reading.weights_condition):
            weights = objects.condition(pod, reading.weights_condition)
            note(Stage.WEIGHTS, reading.instant(weights.get("lastTransitionTime")))
        if objects.holds(pod, "Ready"):
            note(Stage.WARM, reading.instant(objects.condition(pod, "Ready").get("lastTransitionTime")))
    return found


def _started_at(pod: Object, reading: Reading) -> float | None:
    """When the last of its containers began to run, which takes their images."""
    statuses = objects.items(pod, "status", "containerStatuses")
    starts = [reading.instant(objects.part(one, "state", "running").get("startedAt")) for one in statuses]
    known = [one for one in starts if one is not None]
    return max(known) if known and len(known) == len(starts) else None


def _endpoint(pod: Object, reading: Reading) -> Endpoint | None:
    """Where it answers. A balancer that finds pods by itself lets go of one that is marked as draining as soon as it is
    empty there; by this it stays in sight until it is gone."""
    host = objects.text(pod, "status", "podIP")
    port = reading.port or _port_of(pod)
    return Endpoint(id=objects.uid(pod), host=host, port=port) if host and port else None


def _port_of(pod: Object) -> int | None:
    """The container port named `http`, or the only one."""
    ports = [one for container in objects.items(pod, "spec", "containers") for one in objects.items(container, "ports")]
    named = [one for one in ports if one.get("name") == "http"] or ports
    return objects.count(named[0], "containerPort") or None if len(named) == 1 else None
