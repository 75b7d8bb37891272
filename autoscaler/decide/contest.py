"""Which prediction to act on, and with how much margin: judged by what each would have cost.

Every predictor drives a row of shadow pools, one per margin. A shadow pool is the real pool's arithmetic on paper: the
number of replicas that this predictor with this margin would have wanted, ready a start-up time later, against the
demand that came, with a curve that says which share of it would have been late. All of them see the same demand
and cost a few additions a tick, so that nothing has to be tried on real requests (learning with full information).

The least margin whose misses stay within the objective is a predictor's price tag; the cheapest predictor is used. A
forecast that is worth nothing is dearer than the last value at equal misses, and is not used: this is the trust gate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, exp, floor, inf, log

from autoscaler.decide.predictor import Expectation

RUNGS = (-2.0, -1.4, -0.9, -0.5, -0.1, 0.3, 0.7, 1.2, 1.8, 2.6, 3.6)
"""Margins as normal scores of the predictor's own spread: from a quantile of 0.02 up to what only a service with hardly
any misses wants. Between them is interpolated."""
_STEEPNESS = 30.0
"""How fast misses grow with load, as the slope of their log-odds over (demand / capacity): from 1 % at capacity to a
fifth at 10 % more. Measured on modelled replicas with continuous batching and lengths with a heavy tail."""
INERTIA = 12.0
"""Memory of load in mean answer times: batches fill and empty as the longest answers begin and end, which with a heavy
tail take many times the mean; shorter bursts pass unnoticed. Measured on the same replicas."""
_SWITCH = 0.98
"""Another predictor takes over when it is at least 2 % cheaper: less is noise, and each change is a jump."""
_DOUBT = 0.002
"""Misses, as a share of demand, on both sides before reality and paper are compared: a fifth of the usual objective."""
_MOST_BIAS = 20.0
_PRIOR_RUNG = 2.0
_PRIOR_S = 6 * 3600.0
"""Before as much demand was seen, the margin is drawn towards the prior's."""
_LEAST_SHARE = 1e-6


_SLACK, _SLACK_RATIO = 0.5, 0.06
"""Replicas by which demand has to fall short of a size before the size changes, or as a share of it: without it every
tick changes something where demand lies between two sizes. Demand scatters in proportion, so in a large pool half of a
replica is nothing."""
_LAG, _LAG_RATIO = 0.5, 0.05
_STRIDE = 0.11
"""Share of the wish by which a pool that has to grow grows further, rounded to the nearest, so that a small pool takes
one replica at a time: demand that rises goes on rising for a while, and the next step is saved."""


def slack(wish: float) -> float:
    """Replicas by which demand has to fall short of a size before replicas go."""
    return max(_SLACK, _SLACK_RATIO * wish)


def lag(wish: float) -> float:
    """Replicas by which demand may exceed a size before the size changes; of a small pool that is a larger share, so it
    is bounded by a share too."""
    return min(_LAG, _LAG_RATIO * wish)


def stride(wish: float) -> float:
    """Where a pool that has to grow goes, to the nearest whole replica."""
    return wish - lag(wish) + _STRIDE * wish


class _Shadow:
    """One pool on paper."""

    __slots__ = ("_holds", "_lowered_at", "_peaks", "_raised_at", "_wants", "cost", "late", "missed", "want")

    def __init__(self) -> None:
        self.want = 0
        self.cost = 0.0
        self.missed = 0.0
        self.late = 0.0
        """Demand that was late in the last tick."""
        self._lowered_at = -inf
        self._raised_at = -inf
        self._peaks: deque[tuple[float, float]] = deque()
        """Decreasing maxima of the wish within the hold time."""
        self._wants: deque[tuple[float, int]] = deque()
        """Increasing minima of the decision within the start-up time: the least of them is ready."""

    def decide(self, wish: float, crowded: int, now: float, bounds: Bounds) -> None:
        """`wish`: replicas, not rounded; `crowded`: how many present demand fills."""
        peaks = self._peaks
        while peaks and peaks[-1][1] <= wish:
            peaks.pop()
        peaks.append((now, wish))
        while peaks[0][0] < now - bounds.hold_s:
            peaks.popleft()
        want = self.want
        up = ceil(wish - lag(wish))
        down = max(ceil(peaks[0][1] + slack(peaks[0][1])), crowded)
        if up > want:
            want = max(up, floor(stride(wish) + 0.5))
            self._raised_at = now
        elif down < want and now - self._lowered_at >= bounds.payback_s and now - self._raised_at >= bounds.settle_s:
            want = down
            self._lowered_at = now
        want = self.want = min(max(want, bounds.least), bounds.most)
        wants = self._wants
        while wants and wants[-1][1] >= want:
            wants.pop()
        wants.append((now, want))

    def ready(self, now: float, lead_s: float) -> int:
        """Replicas that are ready: the fewest that were wanted within the last start-up time."""
        wants = self._wants
        while len(wants) > 1 and wants[1][0] <= now - lead_s:
            wants.popleft()
        return wants[0][1] if wants else self.want


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a shadow pool shares with the real one."""

    least: int
    most: int
    hold_s: float
    payback_s: float
    lead_s: float
    inertia_s: float
    """Bursts that are shorter go unnoticed."""
    settle_s: float
    """After asking for more, none is given back for so long."""
    objective: float
    """Share of misses at capacity, by which capacity is defined; within (0, 1)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One predictor's price tag."""

    name: str
    score: float
    """Least margin (a normal score) within the objective."""
    replica_hours: float
    """Mean replicas at that margin, over what is remembered."""
    misses: float
    """Share of demand that would have been late with that margin."""


class Contest:
    """The shadow pools of all predictors of one pool."""

    def __init__(self, names: tuple[str, ...], memory_s: float) -> None:
        self._memory_s = memory_s
        self._rows: dict[str, list[_Shadow]] = {name: [_Shadow() for _ in RUNGS] for name in names}
        self._load: float | None = None
        """Demand, smoothed by the inertia of batches."""
        self._offered = 0.0
        self._seconds = 0.0
        self._at: float | None = None
        self._chosen = names[0]
        self._standings: dict[str, Standing] = {}
        self._judged_at = -inf
        self._real = self._paper = self._compared = 0.0

    @property
    def bias(self) -> float:
        """Real misses over those on paper, drawn to one while little was seen."""
        doubt = _DOUBT * max(self._compared, 0.25 * self._offered)
        if doubt <= 0.0:
            return 1.0
        return min(_MOST_BIAS, max(1.0 / _MOST_BIAS, (self._real + doubt) / (self._paper + doubt)))

    def compare(self, name: str, score: float, share: float | None, came: float) -> None:
        """What really happened in the last tick with a predictor at a score: the share of `came` that missed."""
        row = self._rows.get(name)
        if share is None or row is None or came <= 0.0:
            return
        index = min(max(bisect_left(RUNGS, score), 1), len(RUNGS) - 1)
        part = min(1.0, max(0.0, (score - RUNGS[index - 1]) / (RUNGS[index] - RUNGS[index - 1])))
        paper = row[index - 1].late + part * (row[index].late - row[index - 1].late)
        self._real += share * came
        self._paper += min(paper, came)
        self._compared += came

    @property
    def chosen(self) -> str:
        return self._chosen

    @property
    def seconds(self) -> float:
        """How much time the judgement rests on, faded."""
        return self._seconds

    @property
    def standings(self) -> Mapping[str, Standing]:
        return self._standings

    def observe(
        self,
        rate: float,
        unit: float,
        expectations: Mapping[str, Expectation],
        target: float,
        now: float,
        bounds: Bounds,
    ) -> None:
        """One tick: demand of the last minute, capacity of a replica, and what each predictor says."""
        passed = 0.0 if self._at is None else min(120.0, max(0.0, now - self._at))
        self._at = now
        fade = 0.5 ** (passed / self._memory_s)
        self._offered = self._offered * fade + rate * passed
        self._real, self._paper, self._compared = self._real * fade, self._paper * fade, self._compared * fade
        self._seconds = self._seconds * fade + passed
        self._load = (
            rate if self._load is None else self._load + (1.0 - exp(-passed / bounds.inertia_s)) * (rate - self._load)
        )
        odds = log(bounds.objective / (1.0 - bounds.objective)) - _STEEPNESS
        slope = _STEEPNESS * self._load / unit
        crowded = ceil(rate / unit)
        fallback = expectations.get("last_value")
        for name, row in self._rows.items():
            expectation = expectations.get(name, fallback)
            if expectation is None:
                continue
            for shadow, score in zip(row, RUNGS, strict=True):
                if passed:
                    ready = shadow.ready(now, bounds.lead_s)
                    late = 1.0 / (1.0 + exp(-min(50.0, odds + slope / ready))) if ready else 1.0
                    shadow.late = late * rate * passed
                    shadow.missed = shadow.missed * fade + shadow.late
                    shadow.cost = shadow.cost * fade + shadow.want * passed
                shadow.decide(expectation.level(score) / unit, crowded, now, bounds)
        if now - self._judged_at >= 60.0:
            self._judged_at = now
            self._judge(target / self.bias)

    def score(self, name: str | None = None) -> float:
        """Margin to use now with a predictor (None: the chosen one), drawn to the prior while little was seen."""
        standing = self._standings.get(name or self._chosen)
        if standing is None:
            return _PRIOR_RUNG
        trust = self._seconds / (self._seconds + _PRIOR_S)
        return trust * standing.score + (1.0 - trust) * max(_PRIOR_RUNG, standing.score)

    def _judge(self, target: float) -> None:
        if self._offered <= 0.0:
            return
        self._standings = {name: self._standing(name, row, target) for name, row in self._rows.items()}
        best = min(self._standings.values(), key=lambda one: one.replica_hours)
        if best.replica_hours < _SWITCH * self._standings[self._chosen].replica_hours:
            self._chosen = best.name

    def _standing(self, name: str, row: list[_Shadow], target: float) -> Standing:
        """The first margin from above after which misses are too many, interpolated in the logarithm of misses."""
        goal = log(max(target, _LEAST_SHARE))
        # What even the greatest margin does not prevent is no reason for a margin.
        lost = row[-1].missed
        shares = [log(max((shadow.missed - lost) / self._offered, _LEAST_SHARE)) for shadow in row]
        means = [shadow.cost / max(self._seconds, 1.0) for shadow in row]
        index = len(RUNGS) - 1
        while index > 0 and shares[index - 1] <= goal:
            index -= 1
        if index == 0 or shares[index] > goal or shares[index - 1] <= shares[index]:
            return Standing(name, RUNGS[index], means[index], exp(shares[index]))
        part = (goal - shares[index]) / (shares[index - 1] - shares[index])
        score = RUNGS[index] + part * (RUNGS[index - 1] - RUNGS[index])
        mean = means[index] + part * (means[index - 1] - means[index])
        return Standing(name, score, mean, exp(goal))

    def state(self) -> dict[str, object]:
        """What a restart must not forget; JSON."""
        rows = {name: [[one.cost, one.missed] for one in row] for name, row in self._rows.items()}
        return {
            "offered": self._offered, "seconds": self._seconds, "chosen": self._chosen, "rows": rows,
            "compared": [self._real, self._paper, self._compared],
        }  # fmt: skip

    def restore(self, state: Mapping[str, object]) -> None:
        """The reverse, if it is whole and of the same predictors; else nothing."""
        offered, seconds, rows = state.get("offered"), state.get("seconds"), state.get("rows")
        if not isinstance(offered, int | float) or not isinstance(seconds, int | float) or not isinstance(rows, dict):
            return
        if set(rows) != set(self._rows) or not (0.0 <= offered < inf and 0.0 <= seconds < inf):
            return
        if any(len(row) != len(RUNGS) for row in rows.values()):
            return
        self._offered, self._seconds = float(offered), float(seconds)
        for name, row in rows.items():
            for shadow, (cost, missed) in zip(self._rows[name], row, strict=True):
                shadow.cost, shadow.missed = float(cost), float(missed)
        compared = state.get("compared")
        if isinstance(compared, list | tuple) and len(compared) == 3 and all(0.0 <= one < inf for one in compared):
            self._real, self._paper, self._compared = (float(one) for one in compared)
        if state.get("chosen") in self._rows:
            self._chosen = str(state["chosen"])
