"""Runs the sources of a policy and exchanges them when the policy changes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from autoscaler.roots import RootTasks
from lb.clock import Clock
from lb.source import Source

if TYPE_CHECKING:
    from lb.gateway import Gateway


class SourceTasks:
    """One root task per source. Sources whose settings did not change go on over a reload, with what they know."""

    def __init__(self, gateway: Gateway, roots: RootTasks, clock: Clock) -> None:
        self._gateway = gateway
        self._roots = roots
        self._clock = clock
        self._sources: dict[str, Source] = {}

    def follow(self, wanted: list[Source]) -> None:
        """Run these from now on. A source that is gone takes its replicas along: they drain."""
        names = {source.name for source in wanted}
        for name in [name for name in self._sources if name not in names]:
            del self._sources[name]
            self._roots.stop(f"source {name}")
            self._gateway.drop_source(name)
        for source in wanted:
            running = self._sources.get(source.name)
            if running is not None:
                if running.settings == source.settings:
                    continue
                self._roots.stop(f"source {source.name}")
            self._sources[source.name] = source
            self._roots.start(
                f"source {source.name}", source.run(functools.partial(self._gateway.set_source, source.name))
            )

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(self._sources.values())

    def report(self) -> list[dict[str, object]]:
        """How each source is doing, for the admin API."""
        now = self._clock.monotonic()
        return [
            {
                "name": source.name,
                "replicas": source.state.endpoints,
                "age_s": None if source.state.refreshed_at is None else round(now - source.state.refreshed_at, 3),
                "error": source.state.error,
            }
            for source in self._sources.values()
        ]
