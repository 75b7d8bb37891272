"""Where replicas come from: the contract that each file of `lb.sources` fulfils, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lb.endpoint import Endpoint, endpoint_from_url
from lb.settings import BackendSettings

Push = Callable[[Sequence[Endpoint]], None]
"""Takes the whole set that a source wants, each time that it changed."""


@dataclass(slots=True)
class SourceState:
    """How a source is doing, for the admin API and the metrics. Written by the source alone."""

    endpoints: int = 0
    """Replicas in the set it pushed last."""
    refreshed_at: float | None = None
    """Monotonic instant of the last look that succeeded; its age is how stale the set may be. None: never."""
    error: str | None = None
    """Why the last look failed; None: it succeeded. The last good set stays meanwhile."""


class Source(Protocol):
    """One place that lists replicas.

    The set a source pushed last stays in force until it pushes another, so a source that cannot look anything up
    pushes nothing: losing sight of replicas is not the same as knowing that they are gone.
    """

    @property
    def name(self) -> str:
        """Stable and unique: `static`, `file:replicas.yaml`, `dns:A:vllm.internal:8000`."""

    @property
    def settings(self) -> object:
        """What it was made from: a source with equal settings is the same one and goes on over a reload."""

    @property
    def state(self) -> SourceState:
        """How it is doing."""

    async def run(self, push: Push) -> None:
        """Push the first set as soon as it is known, then each change. Ends only by cancellation."""


def endpoint_of(backend: BackendSettings) -> Endpoint:
    """A replica as a list of backends describes it. Raises SettingsError for a URL that is none."""
    return endpoint_from_url(
        backend.url,
        models=backend.models,
        runtime=backend.runtime,
        zone=backend.zone,
        weight=backend.weight,
        max_in_flight=backend.max_in_flight,
        metrics_url=backend.metrics_url,
        gpu_uuids=backend.gpu_uuids,
    )


def unique(endpoints: Iterable[Endpoint], most: int | None = None) -> tuple[Endpoint, ...]:
    """Each address once, the first mention wins; at most `most` of them.

    One replica that is listed twice would get twice its share.
    """
    found: dict[tuple[str, int, str], Endpoint] = {}
    for endpoint in endpoints:
        found.setdefault((endpoint.host, endpoint.port, endpoint.base_path), endpoint)
        if most is not None and len(found) >= most:
            break
    return tuple(found.values())
