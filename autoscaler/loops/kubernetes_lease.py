"""The lease as a `coordination.k8s.io/v1` Lease object, so that `kubectl get leases` shows who leads."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from autoscaler.leader import LeaseRecord
from autoscaler.loops.leader import LeaseConflictError, LeaseUnreachableError
from autoscaler.policy.lease import LeaseSettings
from lb.clock import SYSTEM_CLOCK
from lb.kube import Access, ConflictError, KubeApi, KubeError, NotFoundError, Pace
from lb.kube.pace import RATE_PER_S, SPACING_S

_MANAGER = "tidegate"


class KubernetesLease:
    """Times in the object are for people: no candidate reads them."""

    def __init__(
        self, access: Access, settings: LeaseSettings, namespace: str, *, wall: Callable[[], float] = SYSTEM_CLOCK.wall,
        rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._namespace = namespace
        self._wall = wall
        rng = rng or random.Random()
        self._api = KubeApi(access, rng=rng, deadline_s=settings.call_s)
        # A holder must be back soon after the API is, and nobody else's errors may hold its renewals up.
        self._api.pace = Pace(
            rng, rate_per_s=max(RATE_PER_S, 4.0 / settings.retry_s), spacing_s=min(SPACING_S, settings.retry_s / 2.0),
            longest_s=settings.fence_s / 4.0,
        )  # fmt: skip
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._acquired: tuple[str, int, str] = ("", -1, "")
        """Holder, term, and when that began."""

    async def read(self) -> LeaseRecord | None:
        try:
            return _record(await self._api.get(f"{self._path}/{self._settings.name}"))
        except NotFoundError:
            return None
        except KubeError as error:
            raise LeaseUnreachableError(str(error), retry_after_s=error.retry_after_s) from None

    async def write(self, record: LeaseRecord) -> LeaseRecord:
        body = self._body(record)
        try:
            if record.version is None:
                return _record(await self._api.create(self._path, body, field_manager=_MANAGER))
            return _record(await self._api.replace(f"{self._path}/{self._settings.name}", body, field_manager=_MANAGER))
        except (ConflictError, NotFoundError) as error:
            raise LeaseConflictError(str(error)) from None
        except KubeError as error:
            raise LeaseUnreachableError(str(error), retry_after_s=error.retry_after_s) from None

    async def close(self) -> None:
        """End its connections; the lease stays as it is."""
        await self._api.close()

    def _body(self, record: LeaseRecord) -> dict[str, Any]:
        now = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if self._acquired[:2] != (record.holder, record.transitions):
            self._acquired = (record.holder, record.transitions, now)
        metadata: dict[str, Any] = {"name": self._settings.name, "namespace": self._namespace}
        if record.version is not None:
            metadata["resourceVersion"] = record.version
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": record.holder,
                "leaseDurationSeconds": int(record.duration_s),
                "leaseTransitions": record.transitions,
                "acquireTime": self._acquired[2],
                "renewTime": now,
            },
        }


def _record(lease: Mapping[str, Any]) -> LeaseRecord:
    """What counts of it. Whatever somebody wrote into it by hand, a number becomes one."""
    spec = lease.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return LeaseRecord(
        holder=str(spec.get("holderIdentity") or ""),
        duration_s=float(duration) if isinstance(duration, int) and duration > 0 else 0.0,
        transitions=transitions if isinstance(transitions, int) else 0,
        version=str(lease["metadata"]["resourceVersion"]),
    )
