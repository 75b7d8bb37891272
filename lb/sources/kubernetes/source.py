"""Watches one Service's EndpointSlices, or pods by label, or both, and pushes the replicas they add up to.

While the API cannot be read nothing is pushed: the last good set stays for ever, and the balancer's own health checks
find out which of it still answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.kube import Access, InCluster, KubeApi, KubeConfig, Reflector, Shape, shape_of
from lb.kube.access import own_namespace
from lb.kube.fold import Object
from lb.settings import KubernetesSource
from lb.source import Push, SourceState, unique
from lb.sources.kubernetes.replicas import SERVICE_LABEL, PodFields, Reader, Reading, SliceFields

log = logging.getLogger(__name__)

PODS, SLICES = shape_of(PodFields), shape_of(SliceFields)
Changed = Callable[[Sequence[Object]], None]
_SHOWN = 3
"""Problems that are told at a time; more of them look alike."""


class KubernetesReplicas:
    """One entry of `lb.kubernetes`."""

    def __init__(
        self,
        settings: KubernetesSource,
        directory: Path,
        clock: Clock,
        *,
        runtimes: Collection[str] = (),
        access: Access | None = None,
        connect: Callable[[Access], KubeApi] | None = None,
    ) -> None:
        """`directory`: of a relative kubeconfig. `runtimes`: names that an annotation may tell. `access`: how the API
        is reached, if not as the settings say; `connect` makes the client that reaches it."""
        self.settings = settings
        self.state = SourceState()
        self._access = access or _access(settings, directory)
        namespace = settings.namespace or own_namespace(self._access) or "default"
        what = f"{settings.service or ''}{'?' + settings.pods if settings.pods else ''}"
        port = "" if settings.port is None else f":{settings.port}"
        cluster = f"{settings.context or settings.kubeconfig}/" if settings.kubeconfig else ""
        self.name = f"kubernetes:{cluster}{namespace}/{what}{port}"
        self._namespace = namespace
        self._reader = Reader(settings, runtimes)
        self._clock = clock
        self._connect = connect or (lambda access: KubeApi(access, clock=clock))
        self._slices: Sequence[Object] | None = None
        self._pods: Sequence[Object] | None = None
        self._pushed: tuple[Endpoint, ...] | None = None
        self._problems: tuple[str, ...] = ()
        self._reflectors: list[Reflector] = []

    async def run(self, push: Push) -> None:
        api = self._connect(self._access)
        self._reflectors = [*self._of_service(api, push), *self._of_pods(api, push)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for reflector in self._reflectors:
                    tasks.create_task(reflector.run())
        finally:
            await api.close()

    def _of_service(self, api: KubeApi, push: Push) -> list[Reflector]:
        if self.settings.service is None:
            return []

        def changed(objects: Sequence[Object]) -> None:
            self._slices = objects
            self._update(push)

        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        return [self._reflector(api, path, f"{SERVICE_LABEL}={self.settings.service}", SLICES, changed)]

    def _of_pods(self, api: KubeApi, push: Push) -> list[Reflector]:
        if self.settings.pods is None:
            return []

        def changed(objects: Sequence[Object]) -> None:
            self._pods = objects
            self._update(push)

        path = f"/api/v1/namespaces/{self._namespace}/pods"
        return [self._reflector(api, path, self.settings.pods, PODS, changed)]

    def _reflector(self, api: KubeApi, path: str, selector: str, shape: Shape, changed: Changed) -> Reflector:
        return Reflector(
            api,
            path,
            changed,
            query={"labelSelector": selector},
            shape=shape,
            noticed=self._noticed,
            clock=self._clock,
            idle_s=self.settings.watch_idle_s,
        )

    def _update(self, push: Push) -> None:
        """Push once everything has been seen, and then each difference."""
        if not all(reflector.state.synced for reflector in self._reflectors):
            return
        reading = self._reader.read(self._slices, self._pods)
        self._tell(reading)
        endpoints = unique(reading.endpoints)
        if endpoints == self._pushed:
            self._noticed()
            return
        self._pushed = endpoints
        push(endpoints)
        self.state.endpoints = len(endpoints)
        self._noticed()
        log.info("replicas from Kubernetes", extra={"source": self.name, "replicas": len(endpoints)})

    def _tell(self, reading: Reading) -> None:
        if reading.problems != self._problems:
            new = [problem for problem in reading.problems if problem not in self._problems]
            self._problems = reading.problems
            for problem in new[:_SHOWN]:
                log.warning(
                    "something in Kubernetes is not as it should be", extra={"source": self.name, "error": problem}
                )

    def _noticed(self) -> None:
        """Sum up how the watches are doing: the worst of them counts."""
        states = [reflector.state for reflector in self._reflectors]
        heard = [state.heard_at for state in states]
        self.state.refreshed_at = None if None in heard else min(at for at in heard if at is not None)
        errors = [state.error for state in states if state.error is not None]
        if not errors and not self._pushed:
            errors = list(self._problems[:_SHOWN])  # nobody to send requests to, and here is why
        self.state.error = "; ".join(errors) or None


def _access(settings: KubernetesSource, directory: Path) -> Access:
    if settings.kubeconfig is None:
        return InCluster()
    return KubeConfig(directory / Path(settings.kubeconfig).expanduser(), settings.context)
