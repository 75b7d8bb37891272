"""Tables and records of comparisons, as plain values; whoever prints them chooses the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite

from autoscaler.sim.score import Score

TARGETS = (0.001, 0.01, 0.05)
"""Shares of misses at which GPU-hours are compared."""


@dataclass(frozen=True, slots=True)
class Row:
    """One policy over all seeds: means."""

    policy: str
    gpu_hours: tuple[float, ...]
    """At each of `TARGETS`, by its knob; empty for a policy that was run once as it is."""
    hours: float
    """GPU-hours of the run nearest to the objective, or of the only one."""
    misses: float
    refused: float
    worst_window: float
    actions_per_day: float
    reversals_per_day: float
    wasted: float
    killed: int


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def row(policy: str, runs: Sequence[Sequence[Score]], objective: float, at: Sequence[Sequence[float]]) -> Row:
    """`runs`: by seed, all knobs. `at`: by seed, GPU-hours at each target (empty: not swept)."""
    nearest = [min(scores, key=lambda one: abs(one.misses - objective)) for scores in runs]
    return Row(
        policy=policy,
        gpu_hours=tuple(mean([one[index] for one in at]) for index in range(len(TARGETS))) if at else (),
        hours=mean([one.gpu_hours for one in nearest]),
        misses=mean([one.misses for one in nearest]),
        refused=mean([one.refused for one in nearest]),
        worst_window=max(one.worst_window for one in nearest),
        actions_per_day=mean([one.actions_per_day for one in nearest]),
        reversals_per_day=mean([one.reversals_per_day for one in nearest]),
        wasted=mean([float(one.wasted) for one in nearest]),
        killed=sum(one.killed for scores in runs for one in scores),
    )


HEADER = (
    "policy", "GPU-h", "misses", "@0.1%", "@1%", "@5%", "/oracle-L", "worst 15 min", "actions/d", "reversals/d",
    "wasted", "killed",
)  # fmt: skip


def cells(row: Row, oracle_hours: float | None) -> tuple[str, ...]:
    """One line of the table."""
    at = [f"{hours:.0f}" if isfinite(hours) else "never" for hours in row.gpu_hours] or ["-"] * len(TARGETS)
    hours = row.gpu_hours[TARGETS.index(0.01)] if row.gpu_hours else row.hours
    regret = f"{hours / oracle_hours:.2f}" if oracle_hours and isfinite(hours) else "-"
    return (
        row.policy, f"{row.hours:.1f}", f"{100 * row.misses:.2f}%", *at, regret, f"{100 * row.worst_window:.0f}%",
        f"{row.actions_per_day:.0f}", f"{row.reversals_per_day:.1f}", f"{row.wasted:.0f}", str(row.killed),
    )  # fmt: skip


def record(rows: Sequence[Row], runs: Mapping[str, Sequence[Score]], facts: Mapping[str, object]) -> dict[str, object]:
    """Everything, for JSON. Schedules are left out: they have a file of their own."""
    return {
        "facts": dict(facts),
        "targets": list(TARGETS),
        "rows": [asdict(one) for one in rows],
        "runs": {name: [{**asdict(score), "schedule": None} for score in scores] for name, scores in runs.items()},
    }


def schedule_lines(score: Score) -> list[str]:
    """`time_s,desired_replicas`: the decisions of one run, from the start of the played days."""
    return ["time_s,desired_replicas", *(f"{at:g},{count}" for at, count in score.schedule)]
