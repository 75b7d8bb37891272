"""Whether more replicas of a kind are to be had, by what its waiting pods are told. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.pods import waits_for_a_node

_FRESH_S = 300.0
"""What a node autoscaler said longer ago says nothing about now; they repeat it every minute or two."""
_HELPS = frozenset({"TriggeredScaleUp", "Nominated"})


def refusals(events: Iterable[Object], wall_s: float) -> set[str]:
    """Pods (uids) for which a node autoscaler said that it has no node: cluster-autoscaler's `NotTriggerScaleUp`,
    Karpenter's `FailedScheduling`. Its last word counts."""
    last: dict[str, tuple[float, bool]] = {}
    for event in events:
        reason = objects.text(event, "reason")
        source = objects.text(event, "source", "component") or objects.text(event, "reportingComponent")
        refuses = reason == "NotTriggerScaleUp" or (reason == "FailedScheduling" and source.startswith("karpenter"))
        if not refuses and reason not in _HELPS:
            continue
        stamp = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
        at = objects.epoch_s(stamp)
        uid = objects.text(event, "involvedObject", "uid")
        if at is not None and wall_s - at <= _FRESH_S and at >= last.get(uid, (at, False))[0]:
            last[uid] = (at, refuses)
    return {uid for uid, (_, refuses) in last.items() if refuses}


def is_full(pods: Iterable[Object], refused: set[str], wall_s: float, full_s: float) -> bool:
    """Whether a pod has waited for a node for too long, or will in vain."""
    for pod in pods:
        waiting = waits_for_a_node(pod)
        if not waiting:
            continue
        since = objects.epoch_s(objects.part(pod, "metadata").get("creationTimestamp"))
        if objects.uid(pod) in refused or (since is not None and wall_s - since >= full_s):
            return True
    return False


def is_refused(target: Object) -> bool:
    """Whether the workload's controller is not allowed to make more pods: a quota is used up, or an admission rule says
    no. Deployments tell so by a condition."""
    return objects.holds(target, "ReplicaFailure") and objects.condition(target, "ReplicaFailure").get("reason") in (
        "FailedCreate",
        "ReplicaSetCreateError",
    )
