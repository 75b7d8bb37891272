"""Who else sets the number of replicas, and whether one may overrule them. Pure.

The API server notes for every field who wrote it last (`metadata.managedFields`). A person or a deployment tool writes
once: that wish is respected for a while and may then be overruled. Another controller writes again and again: there the
only way not to fight is not to begin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object

_INSISTENT = {
    "keda": "KEDA",
    "argocd": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "flux": "Flux",
    "fleetagent": "Fleet",
    "config-sync": "Config Sync",
    "tidegate": "another Tidegate controller",
}
"""Beginnings of the field managers of controllers that put back what they want."""
_FIGHT_S = 3600.0
"""Overwritten twice within an hour is no person correcting a number."""
_FIGHT = 2


@dataclass(frozen=True, slots=True)
class Owner:
    """Who wrote `spec.replicas` last."""

    manager: str
    at_s: float | None
    """Wall clock; None: unknown, as for all that came through the scale subresource (API server 1.36)."""
    by_scale: bool
    """Through the scale subresource."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """What follows for us."""

    ours: bool
    """The present number is one that we wrote."""
    owner: Owner | None
    rival: str = ""
    """Why we must not write: another controller does. Empty: we may."""
    advice: str = ""
    """For people: what to do about it."""

    def wanted_by_others(self, replicas: int, wall_s: float, others_s: float) -> int | None:
        """The present number if it is somebody else's wish and not an old one."""
        if self.rival:
            return replicas
        if self.ours or self.owner is None:
            return None
        at = self.owner.at_s
        return replicas if at is None or wall_s - at <= others_s else None


def owners(target: Object) -> list[Owner]:
    """All who hold `spec.replicas`, the last writer first."""
    found = []
    for entry in objects.items(target, "metadata", "managedFields"):
        if "f:replicas" in objects.part(entry, "fieldsV1", "f:spec"):
            manager = str(entry.get("manager") or "somebody")
            found.append(Owner(manager, objects.epoch_s(entry.get("time")), entry.get("subresource") == "scale"))
    return sorted(found, key=lambda one: -(one.at_s if one.at_s is not None else float("inf")))


def scaled_by(scalers: Iterable[Object], kind: str, name: str) -> str:
    """The HorizontalPodAutoscaler that has this target, in words; empty: none has."""
    for scaler in scalers:
        reference = objects.part(scaler, "spec", "scaleTargetRef")
        if reference.get("kind") == kind and reference.get("name") == name:
            for owner in objects.items(scaler, "metadata", "ownerReferences"):
                if owner.get("kind") == "ScaledObject":
                    return f"ScaledObject {owner.get('name')} (KEDA)"
            return f"HorizontalPodAutoscaler {objects.name(scaler)}"
    return ""


def judge(
    target: Object, scalers: Iterable[Object], manager: str, *, override: Iterable[str] = (), fights: str = ""
) -> Ownership:
    """Whose `spec.replicas` of `target` is, seen by us, who write as `manager`. `fights`: who keeps overwriting us."""
    kind, name = objects.text(target, "kind"), objects.name(target)
    known = owners(target)
    last = known[0] if known else None
    allowed = set(override)
    scaler = scaled_by(scalers, kind, name)
    # Who writes another number takes the field from all who held it; those who hold it together want the same.
    ours = any(one.manager == manager for one in known)
    if scaler:
        advice = "delete it, or leave the pool in mode advise and let it follow Tidegate's metric"
        return Ownership(ours, last, f"{scaler} scales {kind} {name}", advice)
    for one in known:
        who = _insists(one, manager)
        if who and one.manager not in allowed:
            advice = f"take `replicas` out of what {who} applies, or name {one.manager!r} under `override`"
            return Ownership(ours, one, f"{who} ({one.manager}) sets the replicas of {kind} {name}", advice)
    if fights and fights not in allowed:
        rival = f"{fights} set the replicas of {kind} {name} again each time after us"
        return Ownership(ours, last, rival, "find out who that is; nothing is changed for an hour")
    return Ownership(ours, last)


def _insists(owner: Owner, manager: str) -> str:
    if owner.manager == manager:
        return ""
    if owner.by_scale and owner.manager == "kube-controller-manager":
        # Only the HorizontalPodAutoscaler of that process scales. Its object may be gone: then it is an old number.
        return ""
    return next((who for prefix, who in _INSISTENT.items() if owner.manager.startswith(prefix)), "")


class Fights:
    """Remembers who overwrote our number, so that an unknown controller is told from a person."""

    def __init__(self) -> None:
        self._wrote = False
        self._overwritten: dict[str, deque[float]] = {}

    def wrote(self) -> None:
        """Our number was stored."""
        self._wrote = True

    def saw(self, ownership: Ownership, now: float) -> None:
        """What a look at the object showed."""
        if not self._wrote or ownership.ours or ownership.owner is None:
            return
        self._wrote = False
        self._overwritten.setdefault(ownership.owner.manager, deque(maxlen=_FIGHT)).append(now)

    def with_whom(self, now: float) -> str:
        """Who insists; empty: nobody."""
        for manager, times in self._overwritten.items():
            if len(times) == _FIGHT and now - times[0] <= _FIGHT_S:
                return manager
        return ""
