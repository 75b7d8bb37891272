"""What is shown of a pool: its last decision with everything behind it, and its replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoscaler.decide.lead_time import LeadTimes
from autoscaler.loops.joined import Joined
from autoscaler.store import StoredDecision


@dataclass(frozen=True, slots=True)
class PoolReport:
    """One pool as of a tick."""

    decision: StoredDecision
    joined: Joined | None
    """None: its replicas have not been seen yet."""

    def shown(self) -> dict[str, object]:
        """JSON for the admin API."""
        return {**explained(self.decision), "replicas": [] if self.joined is None else _replicas(self.joined)}


def explained(decision: StoredDecision) -> dict[str, object]:
    """A stored decision as JSON: its record with the sentence on top."""
    return {"pool": decision.pool, "at": decision.at, "sentence": decision.sentence, "record": dict(decision.record)}


def _replicas(joined: Joined) -> list[dict[str, object]]:
    return [
        {
            "id": one.id,
            "phase": str(one.phase),
            "kind": one.kind,
            "in_flight": one.in_flight,
            "work_left_s": one.work_left_s,
            "protected": one.protected,
            "detail": joined.details.get(one.id, ""),
        }
        for one in joined.fleet.replicas
    ]


def stages_of(leads: Mapping[str, LeadTimes]) -> dict[str, object]:
    """Seconds that each stage of a start takes, by kind: median and 95 % quantile."""
    return {
        kind: {
            str(stage): {"p50_s": round(one.p50_s, 3), "p95_s": round(one.p95_s, 3)}
            for stage, one in model.by_stage().items()
        }
        for kind, model in leads.items()
    }
