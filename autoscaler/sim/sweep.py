"""From runs with different knobs to GPU-hours at equal misses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf, log

from autoscaler.sim.score import Score

_LEAST = 1e-5
"""Shares of misses under this are as good as none; logarithms need a floor."""


def at_misses(scores: Sequence[Score], target: float) -> float:
    """GPU-hours at a share of misses: between the two neighbouring runs (in the order of GPU-hours) that enclose it,
    linear in the logarithm of misses.

    Only neighbours are joined: the curve bends the wrong way where nearly all misses, and a line from there to a run
    with hardly any passes below every run between them. Of several crossings the cheapest counts; inf if no knob is
    good enough. A knob that is good enough and cheaper than any that is not counts as it is.
    """
    goal = log(max(target, _LEAST))
    points = sorted((one.gpu_hours, log(max(one.misses, _LEAST))) for one in scores)
    best = min((hours for hours, misses in points if misses <= goal), default=inf)
    for (hours, misses), (dearer, fewer) in pairwise(points):
        if misses > goal >= fewer:
            best = min(best, hours + (dearer - hours) * (misses - goal) / (misses - fewer))
    return best


def search(run: Callable[[float], Score], knobs: Sequence[float], target: float, rounds: int = 3) -> list[Score]:
    """Runs at `knobs` (any order), then at `rounds` more between the two whose misses enclose the target."""
    scores = [run(knob) for knob in knobs]
    for _ in range(rounds):
        good = [one for one in scores if one.misses <= target]
        bad = [one for one in scores if one.misses > target]
        if not good or not bad:
            break
        low = min(good, key=lambda one: one.gpu_hours)
        high = min(bad, key=lambda one: one.misses)
        knob = 0.5 * (low.knob + high.knob)
        if any(abs(knob - one.knob) < 1e-3 for one in scores):
            break
        scores.append(run(knob))
    return scores
