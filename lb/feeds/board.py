"""What probes found out about each replica: readings start from it, operators look at it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lb.runtime import Conformance, RuntimeSpec


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A replica as it was recognised. Compared by identity: recognised anew is another."""

    spec: RuntimeSpec
    facts: Mapping[str, float]
    adapters: tuple[str, ...] = ()


@dataclass(slots=True)
class FeedCounts:
    """Totals since the start, for the metrics."""

    probes: Counter[str] = field(default_factory=Counter)
    """By status."""
    readings: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Readings that brought nothing, by runtime."""
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Numbers that could not be right, by (runtime, field)."""
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Readings in which a metric was not there, by (runtime, metric)."""


class Board:
    """Written by the prober and the scraper, on the event loop."""

    def __init__(self) -> None:
        self.counts = FeedCounts()
        self._found: dict[str, Found] = {}
        self._conformance: dict[str, Conformance] = {}
        self._waiters: dict[str, asyncio.Event] = {}

    def found(self, replica_id: str) -> Found | None:
        return self._found.get(replica_id)

    def record(self, replica_id: str, found: Found) -> None:
        """The replica is up and is this."""
        self._found[replica_id] = found
        self._conformance[replica_id] = Conformance(found.spec.name)
        event = self._waiters.pop(replica_id, None)
        if event is not None:
            event.set()

    async def known(self, replica_id: str) -> Found:
        """Wait until the replica has been recognised."""
        while (found := self._found.get(replica_id)) is None:
            await self._waiters.setdefault(replica_id, asyncio.Event()).wait()
        return found

    async def pause(self, replica_id: str, found: Found, pause_s: float) -> None:
        """Wait, but not past the moment at which the replica is recognised anew: it came back."""
        try:
            async with asyncio.timeout(pause_s):
                while self._found.get(replica_id) is found:
                    await self._waiters.setdefault(replica_id, asyncio.Event()).wait()
        except TimeoutError:
            return

    def conform(self, replica_id: str, conformance: Conformance) -> None:
        self._conformance[replica_id] = conformance

    def conformance(self, replica_id: str) -> Conformance | None:
        return self._conformance.get(replica_id)

    def forget(self, replica_id: str) -> None:
        """The replica's identity is gone, or another server may be behind it."""
        self._found.pop(replica_id, None)
        self._conformance.pop(replica_id, None)

    def keep(self, replica_ids: frozenset[str]) -> None:
        """Forget all but these."""
        for replica_id in [known for known in self._conformance if known not in replica_ids]:
            self.forget(replica_id)
