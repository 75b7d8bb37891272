"""Plots of comparisons. The only module here that draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from autoscaler.sim.score import Score

_LEAST = 1e-5


def pareto(path: Path, runs: Mapping[str, Sequence[Score]], objective: float) -> None:
    """GPU-hours over misses, one line per policy; nearer to the lower left is better."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    for name, scores in runs.items():
        points = sorted((max(one.misses, _LEAST), one.gpu_hours) for one in scores)
        style = "--" if name.startswith("oracle") else "-"
        axes.plot([100 * x for x, _ in points], [y for _, y in points], style, marker="o", markersize=4, label=name)
    axes.axvline(100 * objective, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("requests past the objective, %")
    axes.set_ylabel("GPU-hours")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
