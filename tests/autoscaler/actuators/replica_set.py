"""A ReplicaSet on paper: pods that it makes and ends as the real one does, calls that fail when a test wants."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from autoscaler.actuator import ActuatorError
from autoscaler.actuators.kubernetes import marks, objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.removal import cost
from autoscaler.actuators.kubernetes.workload import ChangedError, View
from autoscaler.policy.kubernetes import WorkloadSettings

MANAGER = "tidegate"


def pod(uid: str, created: int) -> dict[str, Any]:
    stamp = f"2026-01-01T{created // 3600 % 24:02d}:{created // 60 % 60:02d}:{created % 60:02d}Z"
    return {
        "metadata": {"name": uid, "namespace": "n", "uid": uid, "creationTimestamp": stamp, "annotations": {}},
        "spec": {},
        "status": {"phase": "Pending", "conditions": []},
    }


class ReplicaSet:
    """Stands for `Workload` and for everything behind it."""

    def __init__(self, rng: random.Random, replicas: int, *, faults: float = 0.0, accidents: float = 0.0) -> None:
        self.settings = WorkloadSettings(name="llm")
        self.what = "Deployment n/llm"
        self.rng = rng
        self.faults = faults
        self.accidents = accidents
        self.replicas = replicas
        self.pods: dict[str, dict[str, Any]] = {}
        self.version = 1
        self.made = 0
        self.ended_ready: list[str] = []
        """Pods that were ready when the number was written that ended them, or when they were evicted, in order."""
        self.unready_at_write: set[str] = set()
        self.writes: list[int] = []
        self.evicted: list[str] = []
        self.owner = "kubectl"

    # ------------------------------------------------------------------ what happens by itself

    def active(self) -> list[dict[str, Any]]:
        return [
            one
            for one in self.pods.values()
            if "deletionTimestamp" not in one["metadata"] and one["status"]["phase"] != "Failed"
        ]

    def is_ready(self, one: Mapping[str, Any]) -> bool:
        return objects.holds(one, "Ready")

    def reconcile(self) -> None:
        """One round of the ReplicaSet's controller."""
        active = self.active()
        for _ in range(self.replicas - len(active)):
            self.made += 1
            uid = f"pod-{self.made}"
            self.pods[uid] = pod(uid, self.made)
        surplus = len(active) - self.replicas
        if surplus > 0:
            self.rng.shuffle(active)
            for one in sorted(active, key=self._rank)[:surplus]:
                self.end(one["metadata"]["uid"])
        self.version += 1

    def _rank(self, one: dict[str, Any]) -> tuple[bool, int, bool, int]:
        phases = {"Pending": 0, "Running": 2}
        return bool(one["spec"].get("nodeName")), phases[one["status"]["phase"]], self.is_ready(one), cost(one)

    def end(self, uid: str, *, by_number: bool = True) -> None:
        if self.is_ready(self.pods[uid]) and not (by_number and uid in self.unready_at_write):
            self.ended_ready.append(uid)
        self.pods[uid]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.version += 1

    def sweep(self) -> None:
        """Pods whose time is over disappear."""
        self.pods = {uid: one for uid, one in self.pods.items() if "deletionTimestamp" not in one["metadata"]}

    def place(self, uid: str) -> None:
        self.pods[uid]["spec"]["nodeName"] = "node"

    def ready(self, uid: str, is_ready: bool = True) -> None:
        one = self.pods[uid]
        self.place(uid)
        one["status"] = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}],
        }
        self.version += 1

    def fail(self, uid: str) -> None:
        self.pods[uid]["status"] = {"phase": "Failed", "reason": "Evicted"}
        self.version += 1

    def accident(self) -> None:
        """Something happens between a look and an act."""
        uids = sorted(one["metadata"]["uid"] for one in self.active())
        if self.rng.random() >= self.accidents or not uids:
            return
        uid = self.rng.choice(uids)
        match self.rng.randint(0, 4):
            case 0:
                self.reconcile()
            case 1:
                self.sweep()
            case 2:
                self.ready(uid)
            case 3:
                self.ready(uid, False)
            case 4:
                self.fail(uid)

    # ------------------------------------------------------------------ calls

    def _maybe(self, what: str) -> None:
        if self.rng.random() < self.faults:
            raise ActuatorError(f"{what} failed as the test wants")

    async def read(self) -> View:
        self._maybe("read")
        copies = tuple(_copy(one) for one in self.pods.values())
        entry = {"manager": self.owner, "fieldsV1": {"f:spec": {"f:replicas": {}}}, "operation": "Apply"}
        target = {"kind": "Deployment", "metadata": {"name": "llm", "managedFields": [entry]}}
        return View(target, self.replicas, str(self.version), "app=llm", copies, (), ())

    async def read_again(self, before: View) -> View:
        return await self.read()

    async def scale(self, view: View, replicas: int) -> View:
        self._maybe("scale")
        self.accident()
        if view.version != str(self.version):
            raise ChangedError("version")
        self.replicas, self.owner = replicas, MANAGER
        self.unready_at_write = {uid for uid, one in self.pods.items() if not self.is_ready(one)}
        self.version += 1
        self.writes.append(replicas)
        self._maybe("the answer of scale")
        return View(view.target, replicas, str(self.version), view.selector, view.pods, (), ())

    async def mark(self, one: Object, wanted: Mapping[str, str]) -> Object:
        change = marks.change(one, wanted, MANAGER)
        uid = objects.uid(one)
        if change is None or uid not in self.pods:
            return one
        self._maybe("mark")
        self.accident()
        if uid not in self.pods:
            return one
        metadata = self.pods[uid]["metadata"]
        for key in marks.owned(self.pods[uid], MANAGER):
            metadata["annotations"].pop(key, None)
        metadata["annotations"].update(change)
        fields = {f"f:{key}": {} for key in change}
        entry = {"manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:metadata": {"f:annotations": fields}}}
        metadata["managedFields"] = [entry]
        return _copy(self.pods[uid])

    async def evict(self, one: Object) -> None:
        self._maybe("evict")
        self.accident()
        uid = objects.uid(one)
        if uid in self.pods and _seen(self.pods[uid]) != _seen(one):
            raise ActuatorError("the pod changed")
        if uid in self.pods and "deletionTimestamp" not in self.pods[uid]["metadata"]:
            self.evicted.append(uid)
            self.end(uid, by_number=False)
            if self.rng.random() < 0.5:
                self.reconcile()
        self._maybe("the answer of evict")

    async def discard(self, one: Object) -> None:
        self._maybe("discard")
        self.pods.pop(objects.uid(one), None)


def _copy(one: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in one.items()}


def _seen(one: Mapping[str, Any]) -> tuple[object, object]:
    return one["status"], one["spec"]
