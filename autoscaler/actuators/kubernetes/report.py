"""What people see in the cluster: events on the objects that were touched, and one ConfigMap with conditions.

Nothing here may disturb what it reports on: errors are logged and forgotten, and calls have a pace of their own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object
from lb.clock import Clock
from lb.kube import KubeApi, KubeError, NotFoundError

log = logging.getLogger(__name__)

SPACING_S = 30.0
"""Between two writes of the same event; what happens in between is counted."""
_FORGET_S = 3000.0
"""The API server keeps events for an hour; an older one is written anew."""
_MOST = 500
"""Different events that are remembered; the oldest go."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about a pool."""

    type: str
    status: bool
    reason: str
    """One word."""
    message: str


@dataclass(slots=True)
class _Told:
    name: str
    first: str
    created_at: float
    written_at: float
    count: int = 1
    message: str = ""
    unwritten: bool = False


class Deduplicated:
    """Which events to write, and how often they have happened. Pure."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], _Told] = {}

    def happened(self, uid: str, reason: str, message: str, name: str, stamp: str, now: float) -> tuple[_Told, str]:
        """Count it. Returns it and what to do: `create`, `update`, or nothing for now."""
        key = (uid, reason)
        told = self._told.get(key)
        if told is None or now - told.created_at > _FORGET_S:
            if len(self._told) >= _MOST:
                del self._told[min(self._told, key=lambda one: self._told[one].written_at)]
            told = self._told[key] = _Told(name, stamp, now, now, 1, message)
            return told, "create"
        told.count += 1
        told.message = message
        if now - told.written_at < SPACING_S:
            return told, ""
        told.written_at = now
        return told, "update"

    def forget(self, uid: str, reason: str) -> None:
        """It was not stored; the next time it is written anew."""
        self._told.pop((uid, reason), None)


class Reporter:
    """Shared by the pools of a controller. `api` should have a pace of its own."""

    def __init__(self, api: KubeApi, namespace: str, manager: str, clock: Clock, config_map: str = "tidegate-status"):
        self._api = api
        self._namespace = namespace
        self._manager = manager
        self._clock = clock
        self._config_map = config_map
        self._events = Deduplicated()
        self._conditions: dict[str, dict[str, dict[str, str]]] = {}
        self._complained = False

    async def event(self, about: Object, kind: str, reason: str, message: str) -> None:
        """Say something of an object. `kind`: Normal or Warning."""
        namespace = objects.text(about, "metadata", "namespace") or "default"
        path = f"/api/v1/namespaces/{namespace}/events"
        now, stamp = self._clock.monotonic(), self._stamp()
        name = f"{objects.name(about)[:200]}.{int(self._clock.wall() * 1e6):x}"
        told, todo = self._events.happened(objects.uid(about), reason, message[:1000], name, stamp, now)
        try:
            if todo == "create":
                reference = {
                    "apiVersion": objects.text(about, "apiVersion"),
                    "kind": objects.text(about, "kind"),
                    "name": objects.name(about),
                    "namespace": objects.text(about, "metadata", "namespace"),
                    "uid": objects.uid(about),
                }
                body = {
                    "metadata": {"name": told.name, "namespace": namespace}, "involvedObject": reference, "type": kind,
                    "reason": reason, "message": told.message, "count": 1, "firstTimestamp": stamp,
                    "lastTimestamp": stamp, "source": {"component": "tidegate"},
                }  # fmt: skip
                await self._api.create(path, body, field_manager=self._manager)
            elif todo == "update":
                change = {"count": told.count, "lastTimestamp": stamp, "message": told.message}
                await self._api.patch(f"{path}/{told.name}", change, field_manager=self._manager)
        except NotFoundError:
            self._events.forget(objects.uid(about), reason)
        except KubeError as error:
            self._events.forget(objects.uid(about), reason)
            self._complain(error)

    async def conditions(self, pool: str, conditions: Iterable[Condition]) -> None:
        """Write what holds of a pool, if that is not what is written already."""
        before = self._conditions.get(pool, {})
        present: dict[str, dict[str, str]] = {}
        for one in conditions:
            status = "True" if one.status else "False"
            known = before.get(one.type)
            since = known["lastTransitionTime"] if known and known["status"] == status else self._stamp()
            present[one.type] = {
                "type": one.type, "status": status, "reason": one.reason, "message": one.message[:1000],
                "lastTransitionTime": since,
            }  # fmt: skip
        if present == before:
            return
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._config_map, "namespace": self._namespace},
            "data": {pool: json.dumps({"conditions": list(present.values())}, indent=2)},
        }
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{self._config_map}"
        try:
            # A manager for each pool: what one applies does not remove what another one has.
            await self._api.apply(path, body, field_manager=f"{self._manager}-status-{pool}", force=True)
        except KubeError as error:
            self._complain(error)
            return
        self._conditions[pool] = present

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _complain(self, error: KubeError) -> None:
        (log.debug if self._complained else log.warning)("a report could not be written", extra={"reason": str(error)})
        self._complained = True
