"""The strategies that people choose from, each as usually set: what it costs, how long requests wait, and what may
go wrong. Nothing is tuned here; `autoscaler.sim.sweep` compares policies at equal misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoscaler.sim.report import mean
from autoscaler.sim.score import Score

HYBRID = "hybrid"
STRATEGIES: Mapping[str, tuple[str, float | None]] = {
    "always maximum": ("max", 1.0),
    "reactive": ("hpa", 0.7),
    "predictive": ("predictive", 0.85),
    "minimum + aggressive": ("aggressive", 0.8),
    HYBRID: ("tidegate", None),
}
"""Policy and knob. Reactive aims at 70 % use, the usual target of autoscalers; predictive leaves 15 % for the error of
last week; minimum + aggressive doubles at 80 % full; hybrid is Tidegate, which finds its margin itself."""

STRATEGY_HEADER = (
    "strategy", "GPU-h", "cost", "of max", "mean wait", "misses", "worst 15 min", "refused", "killed", "actions/d",
)  # fmt: skip
"""Name; what it costs; how long requests wait; what goes wrong; how restless it is."""


def strategy_cells(name: str, scores: Sequence[Score], hour_price: float, most_hours: float | None) -> tuple[str, ...]:
    """One line of the table: means over seeds, the worst 15 minutes of all. `hour_price`: of one replica for an hour;
    `most_hours`: GPU-hours of the strategy that is always at its maximum."""
    hours = mean([one.gpu_hours for one in scores])
    share = f"{hours / most_hours:.0%}" if most_hours else "-"
    return (
        name, f"{hours:.1f}", f"{hours * hour_price:.2f}", share, f"{mean([one.delay_s for one in scores]):.2f} s",
        f"{100 * mean([one.misses for one in scores]):.2f}%", f"{100 * max(one.worst_window for one in scores):.0f}%",
        f"{100 * mean([one.refused for one in scores]):.2f}%", str(sum(one.killed for one in scores)),
        f"{mean([one.actions_per_day for one in scores]):.0f}",
    )  # fmt: skip
