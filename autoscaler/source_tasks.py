"""Runs the sources of a policy and exchanges them when the policy changes."""

from __future__ import annotations

import functools
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from autoscaler.roots import RootTasks
from lb.clock import Clock
from lb.endpoint import Endpoint
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
        self._replaced: dict[str, set[str]] = {}
        """Sources that are gone, and those that came in the same change and have not told their replicas yet."""

    def follow(self, wanted: list[Source]) -> None:
        """Run these from now on. A source that is gone takes its replicas along: they drain. Where others come in its
        place, it does so when these have told theirs, so that nobody is without replicas because a name was changed."""
        gone = self._sources.keys() - {source.name for source in wanted}
        for name in gone:
            del self._sources[name]
            self._roots.stop(f"source {name}")
        fresh = set()
        for source in wanted:
            running = self._sources.get(source.name)
            if running is not None:
                if running.settings == source.settings:
                    continue
                self._roots.stop(f"source {source.name}")
            fresh.add(source.name)
            self._sources[source.name] = source
            self._roots.start(f"source {source.name}", source.run(functools.partial(self._push, source.name)))
        for name in self._sources:
            self._replaced.pop(name, None)  # it is back
        for newcomers in self._replaced.values():
            if newcomers & gone:
                newcomers |= fresh  # what should have come in its place has been replaced itself
        self._replaced |= {name: set(fresh) for name in gone}
        self._let_go(gone)

    def _push(self, name: str, endpoints: Sequence[Endpoint]) -> None:
        self._gateway.set_source(name, endpoints)
        if self._replaced:
            self._let_go({name})

    def _let_go(self, names: Set[str]) -> None:
        """These need not be waited for: they have told their replicas, or are gone themselves."""
        for newcomers in self._replaced.values():
            newcomers -= names
        for name in [name for name, newcomers in self._replaced.items() if not newcomers]:
            del self._replaced[name]
            self._gateway.drop_source(name)

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
