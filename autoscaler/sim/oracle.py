"""What a clairvoyant would do: the bounds that policies are measured against.

`oracle-0` has capacity at once. `oracle-L` knows the future and the start-up times, and plays by the same rules: it
asks for each replica its start-up time ahead, bills it from then on, drains it at the end, and keeps it through a lull
that is shorter than a new start would take. Both follow the demand of the minute around; the knob is the share of a
replica's capacity that they use.

`oracle-mean` is what a perfect forecast alone would come to: every quarter of an hour it knows the mean of the next
one, and it never reacts.
"""

from __future__ import annotations

from math import ceil, exp, log

import numpy as np
from numpy.typing import NDArray

from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster
from autoscaler.sim.start_up import Scenario

_SMOOTH_S = 60
_STEP_S = 10
_Z95 = 1.6448536269514722


def need(setting: Setting, knob: float) -> NDArray[np.int64]:
    """Replicas that each 10 s of the played time take: the highest centred minute in them, over the knob."""
    load = setting.load
    kernel = np.ones(_SMOOTH_S) / _SMOOTH_S
    smooth = np.convolve(load.intensity, kernel, "same")[load.start :]
    whole = len(smooth) // _STEP_S
    highest = smooth[: whole * _STEP_S].reshape(whole, _STEP_S).max(axis=1)
    replicas = np.ceil(highest / (knob * setting.per_replica) - 1e-9).astype(np.int64)
    bounded: NDArray[np.int64] = np.clip(replicas, 1, setting.max_replicas)
    return bounded


def mean_s(scenario: Scenario) -> float:
    """Mean start-up time."""
    sigma = log(scenario.p95_s / scenario.p50_s) / _Z95 if scenario.p95_s > scenario.p50_s else 0.0
    return scenario.p50_s * exp(0.5 * sigma * sigma) + scenario.stock_out_ratio * scenario.stock_out_s


def plan(needed: NDArray[np.int64], lead_s: float, drain_s: float) -> NDArray[np.int64]:
    """Replicas to have ready: level by level, lulls shorter than a start and a drain are bridged, as a new start would
    be billed for longer than the lull."""
    ready = np.zeros_like(needed)
    for level in range(1, int(needed.max()) + 1):
        on = np.concatenate(([0], (needed >= level).astype(np.int8), [0]))
        edges = np.flatnonzero(np.diff(on))
        begins, ends = edges[::2], edges[1::2]
        start = begins[0]
        for index, end in enumerate(ends):
            last = index + 1 == len(ends)
            if last or (begins[index + 1] - end) * _STEP_S > lead_s + drain_s:
                ready[start:end] += 1
                if not last:
                    start = begins[index + 1]
    return ready


class Oracle:
    """Plays a plan. `instant`: oracle-0."""

    tick_s = 10.0
    stops = False

    def __init__(self, knob: float, setting: Setting, *, instant: bool) -> None:
        self.name = "oracle-0" if instant else "oracle-L"
        self._instant = instant
        self._scenario = setting.scenario
        lead_s = 0.0 if instant else mean_s(setting.scenario)
        self._plan = plan(need(setting, knob), lead_s, 0.0 if instant else 60.0)
        self.start = int(self._plan[0])

    def tick(self, reading: Reading, roster: Roster) -> None:
        now = reading.now
        at = min(int(now) // _STEP_S, len(self._plan) - 1)
        if self._instant:
            roster.scale_to(int(self._plan[at]), now)
            return
        self._look_ahead(now, roster)
        before = roster.wanted
        # Starts are for later; only what is ready follows the plan down.
        spare = len(roster.ready) - int(self._plan[at])
        for _ in range(max(0, spare)):
            roster.drain(min(roster.ready, key=lambda one: one.in_flight), now)
        roster.note(before, now)

    def _look_ahead(self, now: float, roster: Roster) -> None:
        """Ask for what a later step lacks as soon as the next replica's own start-up time is all that is left."""
        before = roster.wanted
        plan_, size = self._plan, len(self._plan)
        while roster.wanted < roster.max_replicas:
            lead_s = self._scenario.draw(roster.seed, roster.count)
            at = min(size - 1, (int(now) + int(lead_s)) // _STEP_S + 1)
            here = min(size - 1, int(now) // _STEP_S)
            # Those that will leave before then do not count; within a rise nobody leaves.
            low = int(plan_[here : at + 1].min())
            there = min(len(roster.ready), max(low, 0)) + len(roster.starting)
            if int(plan_[at]) <= there:
                break
            roster.start(now)
        roster.note(before, now)


class MeanOracle:
    """The mean of the next quarter of an hour over the knob, ready a start-up time late, whatever happens."""

    name = "oracle-mean"
    tick_s = 900.0
    stops = False

    def __init__(self, knob: float, setting: Setting) -> None:
        self._knob = knob
        self._setting = setting
        self.start = self._need(0)

    def tick(self, reading: Reading, roster: Roster) -> None:
        roster.scale_to(self._need(int(reading.now)), reading.now)

    def _need(self, now: int) -> int:
        setting = self._setting
        begin = setting.load.start + now
        mean = float(setting.load.intensity[begin : begin + int(self.tick_s)].mean())
        return max(1, min(setting.max_replicas, ceil(mean / (self._knob * setting.per_replica) - 1e-9)))
