"""What probes and readings of replicas brought, as the admin API shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from lb.runtime import Conformance

JSON = dict[str, object]


class FeedTotals(Protocol):
    """Totals since the start."""

    @property
    def probes(self) -> Mapping[str, int]:
        """By outcome."""

    @property
    def readings(self) -> int: ...

    @property
    def failed(self) -> Mapping[str, int]:
        """Readings that brought nothing, by runtime."""

    @property
    def dropped(self) -> Mapping[tuple[str, str], int]:
        """Numbers that could not be right, by (runtime, field)."""

    @property
    def missing(self) -> Mapping[tuple[str, str], int]:
        """Readings without a metric, by (runtime, metric)."""


class Feeds(Protocol):
    """Whoever probes and reads the replicas."""

    @property
    def counts(self) -> FeedTotals: ...

    def conformance(self, replica_id: str) -> Conformance | None:
        """What this replica turned out to tell; None before it was recognised."""


def feeds_message(feeds: Feeds | None, replica_ids: Iterable[str]) -> JSON:
    """Totals, and for each replica what it tells; null before it was recognised."""
    if feeds is None:
        return {"probes": {}, "readings": 0, "failed": {}, "dropped": [], "missing": [],
                "replicas": dict.fromkeys(replica_ids)}  # fmt: skip
    counts = feeds.counts
    return {
        "probes": {str(status): count for status, count in counts.probes.items()},
        "readings": counts.readings,
        "failed": dict(counts.failed),
        "dropped": _rows("field", counts.dropped),
        "missing": _rows("metric", counts.missing),
        "replicas": {replica_id: feeds.conformance(replica_id) for replica_id in replica_ids},
    }


def _rows(name: str, counts: Mapping[tuple[str, str], int]) -> list[JSON]:
    return [{"runtime": runtime, name: key, "count": count} for (runtime, key), count in sorted(counts.items())]
