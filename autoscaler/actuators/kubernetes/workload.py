"""One object with the scale subresource, its pods, and what touches either: reads, the number, marks, evictions.

Carries out what the pure modules beside it say. Every write asks first whether this process may act, and the number is
only written against the version that it was decided on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from autoscaler.actuator import ActuatorError
from autoscaler.actuators.kubernetes import marks, number, objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.policy.kubernetes import WorkloadSettings
from lb.kube import ConflictError, ForbiddenError, KubeApi, KubeError, NotFoundError

_GROUPS = {"deployments": "apps/v1", "statefulsets": "apps/v1", "replicasets": "apps/v1"}
_KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "replicasets": "ReplicaSet"}


@dataclass(frozen=True, slots=True)
class View:
    """One look at it."""

    target: Object
    replicas: int
    """`spec.replicas` of its scale."""
    version: str
    selector: str
    pods: tuple[Object, ...]
    scalers: tuple[Object, ...]
    """HorizontalPodAutoscalers of the namespace."""
    budgets: tuple[Object, ...]
    """PodDisruptionBudgets of the namespace."""


class ChangedError(Exception):
    """The object has changed since it was read."""


def failed(what: str, error: KubeError) -> ActuatorError:
    """The same for the controller, in words."""
    if isinstance(error, ForbiddenError):
        return ActuatorError(f"{what}: the ServiceAccount may not: {error}", retry_after_s=60.0)
    return ActuatorError(f"{what}: {error}", retry_after_s=error.retry_after_s)


class Workload:
    """Calls for one target. `may_act` is asked before every write."""

    def __init__(
        self, api: KubeApi, settings: WorkloadSettings, namespace: str, manager: str, may_act: Callable[[], bool]
    ) -> None:
        self._api = api
        self.settings = settings
        self._manager = manager
        self._may_act = may_act
        self._namespace = namespace
        resource = settings.resource
        group, _, plural = resource.rpartition("/") if "/" in resource else (_GROUPS.get(resource, ""), "", resource)
        self._path = f"/apis/{group}/namespaces/{namespace}/{plural}/{settings.name}"
        self.what = f"{_KINDS.get(plural, plural)} {namespace}/{settings.name}"

    # ------------------------------------------------------------------ reads

    async def read(self) -> View:
        """Everything. Raises ActuatorError if anything that decisions rest on could not be read."""
        with self._reading():
            scale, target, scalers, budgets = await asyncio.gather(
                self._api.get(f"{self._path}/scale"),
                self._api.get(self._path),
                self._optional(f"/apis/autoscaling/v2/namespaces/{self._namespace}/horizontalpodautoscalers"),
                self._optional(f"/apis/policy/v1/namespaces/{self._namespace}/poddisruptionbudgets"),
            )
            return await self._with_pods(scale, target, scalers, budgets)

    async def read_again(self, before: View) -> View:
        """The number, its owner and the pods anew; who else scales and what keeps pods as they were before."""
        with self._reading():
            scale, target = await asyncio.gather(self._api.get(f"{self._path}/scale"), self._api.get(self._path))
            return await self._with_pods(scale, target, before.scalers, before.budgets)

    async def _with_pods(
        self, scale: Object, target: Object, scalers: tuple[Object, ...], budgets: tuple[Object, ...]
    ) -> View:
        """The pods are listed after the version was read: what changes them later changes that version, too."""
        selector = objects.text(scale, "status", "selector")
        if not selector:
            raise ActuatorError(f"{self.what}: its scale has no selector, so its pods cannot be told from others")
        listed = await self._api.list_all(f"/api/v1/namespaces/{self._namespace}/pods", {"labelSelector": selector})
        number, version = objects.count(scale, "spec", "replicas"), objects.version(scale)
        return View(target, number, version, selector, listed.items, scalers, budgets)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except NotFoundError as error:
            raise ActuatorError(f"{self.what} does not exist: {error}", retry_after_s=60.0) from None
        except KubeError as error:
            raise failed(f"{self.what} could not be read", error) from None

    async def _optional(self, path: str) -> tuple[Object, ...]:
        """A collection that a role may leave out; any other trouble is trouble."""
        try:
            return (await self._api.list_all(path)).items
        except (ForbiddenError, NotFoundError):
            return ()

    # ------------------------------------------------------------------ writes

    def must_lead(self) -> None:
        """Raise unless this process may act at this instant."""
        if not self._may_act():
            raise ActuatorError(f"{self.what}: this controller does not lead (any more), so it changes nothing")

    async def scale(self, view: View, replicas: int) -> View:
        """Write the number that was decided on `view`; ChangedError if anything there is newer by now.

        Returns the view with the new version.
        """
        self.must_lead()
        try:
            stored = await number.write(
                self._api, self._path, replicas, name=self.settings.name, version=view.version, manager=self._manager
            )
        except ConflictError as error:
            raise ChangedError(str(error)) from None
        except KubeError as error:
            raise failed(f"{self.what} could not be scaled to {replicas}", error) from None
        return replace(view, replicas=replicas, version=objects.version(stored))

    async def mark(self, pod: Object, wanted: Mapping[str, str]) -> Object:
        """Make our annotations on a pod these. Returns the pod as it is then; as it was, if it is gone."""
        change = marks.change(pod, wanted, self._manager)
        if change is None:
            return pod
        self.must_lead()
        path = f"/api/v1/namespaces/{self._namespace}/pods/{objects.name(pod)}"
        try:
            return await self._api.apply(path, marks.body(pod, change), field_manager=self._manager, force=True)
        except (ConflictError, NotFoundError):
            return pod
        except KubeError as error:
            raise failed(f"pod {objects.name(pod)} could not be marked", error) from None

    async def evict(self, pod: Object) -> None:
        """Ask for the end of a pod that still is as it was seen. A disruption budget may refuse; it is never forced."""
        self.must_lead()
        name = objects.name(pod)
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": self._namespace},
            "deleteOptions": {"preconditions": {"uid": objects.uid(pod), "resourceVersion": objects.version(pod)}},
        }
        try:
            await self._api.create(f"/api/v1/namespaces/{self._namespace}/pods/{name}/eviction", body)
        except NotFoundError:
            return
        except ConflictError:
            raise ActuatorError(f"pod {name} changed before it could be evicted; looked at again next tick") from None
        except KubeError as error:
            if "DisruptionBudget" in error.causes:
                raise ActuatorError(
                    f"a disruption budget keeps pod {name}: {error}; waiting, it is not forced",
                    retry_after_s=error.retry_after_s or 15.0,
                ) from None
            raise failed(f"pod {name} could not be evicted", error) from None

    async def discard(self, pod: Object) -> None:
        """Delete the object of a pod that has ended."""
        self.must_lead()
        path = f"/api/v1/namespaces/{self._namespace}/pods/{objects.name(pod)}"
        try:
            await self._api.delete(path, {"preconditions": {"uid": objects.uid(pod)}})
        except (NotFoundError, ConflictError):
            return
        except KubeError as error:
            raise failed(f"pod {objects.name(pod)} could not be deleted", error) from None
