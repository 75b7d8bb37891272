"""Annotations that we keep on pods: which one goes first, which must not be moved while it loads. Pure.

They are applied server-side under our name: what is no longer in the set goes away, and what somebody else wrote is
left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.pods import START_ID, is_active, is_ready
from autoscaler.actuators.kubernetes.removal import COST, LOWEST_COST

DRAINING = "tidegate.dev/draining"
"""Why the balancer gives it no new requests; for people and for other balancers."""
STAY = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Kept by a pod while its weights load: to move it then would begin that anew. Not afterwards, or its node could never
be given back."""


def desired(pod: Object, *, start_id: str | None, draining: str | None, ending: bool) -> dict[str, str]:
    """What we want to be on it."""
    marks: dict[str, str] = {}
    name = start_id or objects.notes(pod).get(START_ID)
    if name:
        marks[START_ID] = name
    if draining is not None:
        marks[DRAINING] = draining
    if ending:
        marks[COST] = str(LOWEST_COST)
    elif is_active(pod) and not is_ready(pod):
        marks.update(STAY)
    return marks


def owned(pod: Object, manager: str) -> set[str]:
    """Annotations that we have applied."""
    found: set[str] = set()
    for entry in objects.items(pod, "metadata", "managedFields"):
        if entry.get("manager") == manager and entry.get("operation") == "Apply":
            fields = objects.part(entry, "fieldsV1", "f:metadata", "f:annotations")
            found |= {key.removeprefix("f:") for key in fields if key.startswith("f:")}
    return found


def change(pod: Object, marks: Mapping[str, str], manager: str) -> dict[str, str] | None:
    """The set to apply; None: it is as it should be. Annotations of others are not touched, but for the deletion cost:
    a victim must come first."""
    ours, present = owned(pod, manager), objects.notes(pod)
    wanted = {key: value for key, value in marks.items() if key in ours or key not in present or key == COST}
    if ours == wanted.keys() and all(present.get(key) == value for key, value in wanted.items()):
        return None
    return wanted


def body(pod: Object, marks: Mapping[str, str]) -> dict[str, object]:
    """For server-side apply. The uid keeps it from meeting another pod of that name."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": objects.name(pod),
            "namespace": objects.text(pod, "metadata", "namespace"),
            "uid": objects.uid(pod),
            "annotations": dict(marks),
        },
    }
