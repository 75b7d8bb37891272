"""Which pod goes when a number is lowered, and what number to write. Pure.

Numbers say how many, not which. The rules here keep one promise: **a pod that was not told to end never ends because of
us**. So the number is never below the pods that were not told to end, and a number is lowered only if whoever acts on
it will take exactly those that were. Where that is not sure, the pod is evicted first.

A ReplicaSet removes in this order (`ActivePodsWithRanks` in kubernetes `pkg/controller/controller_utils.go`): without a
node before with one; pending, unknown, running; not ready before ready; lowest deletion cost; and only then by
neighbours and age. The deletion cost of a ready pod therefore does not help while another one still starts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.pods import is_active, is_ready

COST = "controller.kubernetes.io/pod-deletion-cost"
LOWEST_COST = -(2**31)
"""The least that fits: nobody else's mark may come before."""
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def cost(pod: Object) -> int:
    try:
        return int(objects.notes(pod).get(COST, "0"))
    except ValueError:
        return 0


def _order(pod: Object, marked: bool) -> tuple[bool, int, bool, int]:
    placed = bool(objects.text(pod, "spec", "nodeName"))
    phase = _PHASES.get(objects.text(pod, "status", "phase"), 1)
    return placed, phase, is_ready(pod), LOWEST_COST if marked else cost(pod)


def cost_decides(pods: Iterable[Object], ending: Collection[str]) -> bool:
    """Whether a ReplicaSet that must end as many pods as are in `ending` (uids) ends exactly those, once they carry
    the lowest deletion cost. A tie with a pod that stays counts as no."""
    active = [pod for pod in pods if is_active(pod)]
    go = [_order(pod, True) for pod in active if objects.uid(pod) in ending]
    stay = [_order(pod, False) for pod in active if objects.uid(pod) not in ending]
    return not go or not stay or max(go) < min(stay)


def mismarked(pods: Iterable[Object], ending: Collection[str]) -> list[str]:
    """Pods (uids) that should carry the lowest deletion cost and do not, or the other way round. Nothing is wrong while
    none is to end: the marks then decide nothing."""
    active = {objects.uid(pod): pod for pod in pods if is_active(pod)}
    if not active.keys() & ending:
        return []
    return [uid for uid, pod in active.items() if (cost(pod) == LOWEST_COST) != (uid in ending)]


def ordinal(pod: Object) -> int:
    """Place of a pod in its StatefulSet; -1 if it has none."""
    tail = objects.name(pod).rpartition("-")[2]
    return int(tail) if tail.isdecimal() else -1


def ordinal_decides(pods: Iterable[Object], ending: Collection[str]) -> bool:
    """Whether a StatefulSet ends exactly those: they must be the highest ordinals."""
    active = [pod for pod in pods if is_active(pod)]
    go = [ordinal(pod) for pod in active if objects.uid(pod) in ending]
    stay = [ordinal(pod) for pod in active if objects.uid(pod) not in ending]
    return not go or not stay or min(go) > max(stay)


def next_by_ordinal(pods: Iterable[Object], ending: Collection[str]) -> str | None:
    """The one pod of a StatefulSet that can go next (uid), those aside that are told to."""
    left = [pod for pod in pods if is_active(pod) and objects.uid(pod) not in ending]
    return objects.uid(max(left, key=ordinal)) if left else None


def rolls_out(pods: Sequence[Object]) -> bool:
    """Whether pods of two templates live side by side: then it is open which ReplicaSet a lower number takes from."""
    hashes = {objects.text(pod, "metadata", "labels", "pod-template-hash") for pod in pods if is_active(pod)}
    return len(hashes) > 1


def wanted(pods: Iterable[Object], ending: Collection[str], unseen: int) -> int:
    """The number to write: every pod that was not told to end, and every start that is no pod yet."""
    kept = sum(is_active(pod) and objects.uid(pod) not in ending for pod in pods)
    return kept + max(0, unseen)
