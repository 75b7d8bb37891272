"""What tests of the actuator share: an actuator on a Deployment of their own, and ways to wait for what it sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autoscaler.action import ScaleUp
from autoscaler.actuator import ActuatorError, Observation
from autoscaler.actuators.kubernetes.nodes import NodePool
from autoscaler.actuators.kubernetes.pool import KubernetesActuator
from autoscaler.actuators.kubernetes.report import Reporter
from autoscaler.fleet import Phase
from autoscaler.policy.kubernetes import KubernetesSettings
from lb.clock import SYSTEM_CLOCK
from lb.kube import Explicit, KubeApi
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.workloads import deployment

POOL = "chat"
MERGE = "application/merge-patch+json"


def settings_of(*names: str, resource: str = "deployments", **others: Any) -> KubernetesSettings:
    """One workload for each name; the first is of kind `default`, the others of a kind of their name."""
    workloads = [
        {"name": name, "resource": resource, "kind": "default" if index == 0 else name}
        for index, name in enumerate(names)
    ]
    return KubernetesSettings.model_validate({"type": "kubernetes", "workloads": workloads, **others})


@dataclass
class Scene:
    """A namespace with workloads and actuators on them."""

    cluster: Cluster
    namespace: str
    apis: list[KubeApi] = field(default_factory=list)

    def path(self, name: str = "llm", resource: str = "deployments", group: str = "apps/v1") -> str:
        return f"/apis/{group}/namespaces/{self.namespace}/{resource}/{name}"

    def deploy(self, name: str, replicas: int, kind: str = "Deployment", **template: Any) -> None:
        annotations = {"test/exit-after": "0s", **template.pop("annotations", {})}
        body = deployment(name, replicas, kind, annotations=annotations, **template)
        if kind == "StatefulSet":
            body["spec"]["podManagementPolicy"] = "Parallel"
        resource = f"{kind.lower()}s"
        self.cluster.create(self.path("", resource).rstrip("/"), body)

    def api(self, access: Explicit | None = None) -> KubeApi:
        made = KubeApi(access or self.cluster.access(), deadline_s=4.0)
        self.apis.append(made)
        return made

    def actuator(
        self, settings: KubernetesSettings | None = None, *, may_act: Callable[[], bool] = lambda: True,
        owns: bool = True, nodes: NodePool | None = None, access: Explicit | None = None, reports: bool = False,
    ) -> KubernetesActuator:  # fmt: skip
        settings = settings or settings_of("llm")
        api = self.api(access)
        reporter = None
        if reports:
            reporter = Reporter(api.for_pool(), self.namespace, settings.field_manager, SYSTEM_CLOCK)
        return KubernetesActuator(
            POOL, settings, api, self.namespace, SYSTEM_CLOCK, may_act=may_act, owns=owns, nodes=nodes,
            reporter=reporter,
        )  # fmt: skip

    def replicas(self, name: str = "llm", resource: str = "deployments", group: str = "apps/v1") -> int:
        found: int = self.cluster.call("GET", self.path(name, resource, group))[1]["spec"]["replicas"]
        return found

    def pods(self, app: str = "llm") -> dict[str, dict[str, Any]]:
        """By uid, those that are not about to go."""
        listed = self.cluster.call("GET", f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3D{app}")[1]
        return {one["metadata"]["uid"]: one for one in listed["items"] if "deletionTimestamp" not in one["metadata"]}

    def patch_pod(self, uid: str, body: dict[str, Any], app: str = "llm", sub: str = "") -> None:
        name = self.pods(app)[uid]["metadata"]["name"]
        status, answer = self.cluster.call(
            "PATCH", f"/api/v1/namespaces/{self.namespace}/pods/{name}{sub}", body, MERGE
        )
        assert status == 200, answer

    def release(self, *uids: str, app: str = "llm") -> None:
        """Let pods get ready whose template says `test/ready-delay: 1h`."""
        for uid in uids:
            self.patch_pod(uid, {"metadata": {"annotations": {"test/ready-delay": "0s"}}}, app)

    def set_replicas(self, replicas: int, name: str = "llm", manager: str = "kubectl", sub: str = "") -> None:
        """As a person would, by kubectl."""
        path = f"{self.path(name)}{sub}?fieldManager={manager}"
        status, answer = self.cluster.call("PATCH", path, {"spec": {"replicas": replicas}}, MERGE)
        assert status == 200, answer

    async def eventually(self, holds: Callable[[], bool], what: str, within_s: float = 15.0) -> None:
        await asyncio.to_thread(self.cluster.eventually, holds, what, within_s)

    async def close(self) -> None:
        """Give back the GPUs: all tests share three nodes."""
        for resource in ("deployments", "statefulsets"):
            path = f"/apis/apps/v1/namespaces/{self.namespace}/{resource}"
            self.cluster.call("DELETE", path, {"propagationPolicy": "Background"})
        for api in self.apis:
            await api.close()


def up(total: int, *names: str, kind: str = "default") -> ScaleUp:
    return ScaleUp(POOL, kind, names, total, "demand")


def phases(seen: Observation) -> list[Phase]:
    return sorted(one.fact.phase for one in seen.replicas)


def ready(count: int) -> Callable[[Observation], bool]:
    return lambda seen: phases(seen) == [Phase.READY] * count


async def until(
    actuator: KubernetesActuator, wanted: Callable[[Observation], bool], within_s: float = 20.0
) -> Observation:
    """Look, as the loop does tick by tick, until it is as wanted."""
    seen: Observation | None = None
    error = ""
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    seen = await actuator.observe()
                    if wanted(seen):
                        return seen
                except ActuatorError as told:
                    error = str(told)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"never came to be; at last there was {seen} {error}") from None
