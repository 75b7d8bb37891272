"""What became of the requests of a run, and the figures that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

from autoscaler.sim.replica_model import ReplicaModel
from tests.bench.routing.workload import Item


@dataclass(slots=True)
class Outcome:
    """One request; times in model seconds from when it was due."""

    first_s: float | None = None
    end_s: float | None = None
    failure: str = ""
    """Empty: complete."""
    late_s: float = 0.0
    """How much later than due it was sent: the generator's own lag."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A run in numbers; times in model seconds."""

    requests: int
    failed_before_token: int
    failed_after_token: int
    ttft_mean: float
    ttft_p50: float
    ttft_p90: float
    ttft_p99: float
    e2e_mean: float
    e2e_p50: float
    e2e_p90: float
    e2e_p99: float
    slowdown_mean: float
    slowdown_p50: float
    slowdown_p99: float
    hit_ratio: float | None = None
    """Prompt tokens that a prefix cache spared."""
    spread: tuple[int, ...] = ()
    """Requests by replica."""
    late_p99_s: float = 0.0
    late_max_s: float = 0.0
    """Of the generator."""
    replica_late_max_s: float = 0.0
    """Of the replicas' timers."""
    failures: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def figures(items: Sequence[Item], outcomes: Sequence[Outcome], warm_s: float, **known: Any) -> Figures:
    """Figures over the requests due after `warm_s`. Failed ones count as failures and in no latency."""
    model = ReplicaModel()
    counted = [(item, outcome) for item, outcome in zip(items, outcomes, strict=True) if item.at_s >= warm_s]
    whole = [(i, o) for i, o in counted if not o.failure and o.first_s is not None and o.end_s is not None]
    failed = [o for _, o in counted if o.failure]
    kinds: dict[str, int] = {}
    for outcome in failed:
        kinds[outcome.failure] = kinds.get(outcome.failure, 0) + 1
    first = sorted(o.first_s for _, o in whole if o.first_s is not None)
    end = sorted(o.end_s for _, o in whole if o.end_s is not None)
    slow = sorted(o.end_s / model.alone_s(i.prompt_tokens, i.output_tokens)[1] for i, o in whole if o.end_s is not None)
    late = sorted(o.late_s for _, o in counted)
    return Figures(
        len(counted), sum(1 for o in failed if o.first_s is None), sum(1 for o in failed if o.first_s is not None),
        _mean(first), _at(first, 0.5), _at(first, 0.9), _at(first, 0.99),
        _mean(end), _at(end, 0.5), _at(end, 0.9), _at(end, 0.99),
        _mean(slow), _at(slow, 0.5), _at(slow, 0.99),
        late_p99_s=_at(late, 0.99), late_max_s=late[-1] if late else 0.0, failures=kinds, **known,
    )  # fmt: skip


def _at(values: Sequence[float], q: float) -> float:
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else float("nan")


def middle(runs: Sequence[Figures], name: str) -> tuple[float, float]:
    """(median, largest - smallest) of one figure over runs."""
    values = [float(getattr(run, name)) for run in runs]
    return median(values), max(values) - min(values)
