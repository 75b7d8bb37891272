"""The fast engine: the real policy over a pool model, in steps of one second."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from autoscaler.sim.flow import Flow, draw
from autoscaler.sim.policy import Policy, Reading
from autoscaler.sim.pool_model import PoolModel
from autoscaler.sim.roster import Roster, SimReplica
from autoscaler.sim.score import UNSCORED_S, Score, Tally
from autoscaler.sim.start_up import Scenario
from autoscaler.sim.workload import Load

_WINDOW_S = 60
HOURS_ERROR = 0.02
"""Mean GPU-hours over a few runs differ from the exact engine's by at most this share; a test measures it."""
MISSES_ERROR = 0.003
"""The same of the share of misses."""


class FastEngine:
    """One run."""

    def __init__(
        self, load: Load, policy: Policy, model: PoolModel, scenario: Scenario, *, seed: int, max_replicas: int,
        noise: int = 0,
    ) -> None:  # fmt: skip
        """`noise`: other lengths for the same arrivals and start-up times."""
        self._load, self._policy, self._model = load, policy, model
        self.roster = Roster(
            scenario, seed, max_replicas, self._joined, self._left, self._returned, scored_from=UNSCORED_S
        )
        self._tally = Tally()
        self._rng = np.random.default_rng((seed + 77_777, noise))
        self.flow = Flow(model)
        self._drains: list[tuple[float, int]] = []
        self._joining_late = 0.0
        self._offered = self._missed = self._served = 0.0
        self._ring = [(0.0, 0.0)] * (_WINDOW_S + 1)

    def play(self, progress: Callable[[int], None] | None = None, knob: float = 1.0) -> Score:
        """Play the load to its end. `progress` is told the seconds that were played since it was last called."""
        begin, end = self._load.start, len(self._load.arrivals)
        self.roster.place(min(self._policy.start, self.roster.max_replicas), 0.0)
        self.flow.fill(len(self.roster.ready), float(self._load.arrivals[begin : begin + _WINDOW_S].mean()))
        self._run(self._load.arrivals[begin:end], progress)
        return self._tally.score(self._policy.name, knob, self.roster, float(end - begin))

    def _run(self, arrivals: NDArray[np.int64], progress: Callable[[int], None] | None) -> None:
        roster, flow, policy, tally, ring = self.roster, self.flow, self._policy, self._tally, self._ring
        tick_s = int(policy.tick_s)
        drains = self._drains
        for now, drawn in enumerate(draw(self._model, arrivals, self._rng)):
            if roster.due_at() <= now:
                roster.advance(now)
            while drains and drains[0][0] <= now:
                self._drained(heappop(drains)[1], now)
            if now % tick_s == 0:
                policy.tick(self._reading(now), roster)
            missed, refused, served, delay_s = flow.second(drawn, len(roster.ready))
            came = drawn.came
            if self._joining_late:
                missed = min(float(came), missed + self._joining_late)
                self._joining_late = 0.0
            self._offered += came
            self._missed += missed
            self._served += served
            ring[now % (_WINDOW_S + 1)] = (self._offered, self._served)
            tally.add(now, came, missed, refused, delay_s)
            if progress is not None and now % _WINDOW_S == _WINDOW_S - 1:
                progress(_WINDOW_S)

    def _reading(self, now: int) -> Reading:
        roster = self.roster
        ready = len(roster.ready)
        share = (self.flow.total + self.flow.waiting) / ready if ready else 0.0
        for replica in roster.ready:
            replica.in_flight = share
        window = min(now, _WINDOW_S)
        newest = self._ring[(now - 1) % (_WINDOW_S + 1)]
        oldest = self._ring[(now - 1 - _WINDOW_S) % (_WINDOW_S + 1)] if now > _WINDOW_S else (0.0, 0.0)
        return Reading(
            now=float(now), ready=ready, starting=len(roster.starting), in_flight=self.flow.total,
            queued=self.flow.waiting,
            requests_per_s=(newest[0] - oldest[0]) / window if window else None,
            served_per_s=(newest[1] - oldest[1]) / window if window else None,
            offered_total=self._offered, missed_total=self._missed,
        )  # fmt: skip

    # ------------------------------------------------------------------ replicas come and go

    def _joined(self, replica: SimReplica, now: float) -> None:
        self._joining_late += self.flow.join(len(self.roster.ready))

    def _left(self, replica: SimReplica, now: float) -> None:
        """A joining replica takes its share from the others; a leaving one takes what it has along."""
        replica.in_flight = self.flow.leave(len(self.roster.ready) + 1)
        heappush(self._drains, (now + self._drain_s(replica), replica.ordinal))

    def _drain_s(self, replica: SimReplica) -> float:
        times = self._model.drain_s
        return times[min(len(times) - 1, max(0, round(replica.in_flight)))]

    def _returned(self, replica: SimReplica, now: float) -> None:
        """Completions thin out as they go: with half of the time left, a quarter still runs."""
        for index, (end, ordinal) in enumerate(self._drains):
            if ordinal == replica.ordinal:
                left = max(0.0, end - now) / max(self._drain_s(replica), 1e-9)
                self.flow.come_back(replica.in_flight * left * left)
                del self._drains[index]
                heapify(self._drains)
                return

    def _drained(self, ordinal: int, now: float) -> None:
        replica = self.roster.draining.get(ordinal)
        if replica is not None:
            replica.in_flight = 0.0
            self._finished(replica, now)

    def _finished(self, replica: SimReplica, now: float) -> None:
        """Policies without a protocol of their own let a drained replica end by itself; the controller stops it."""
        if not self._policy.stops:
            self.roster.gone(replica, now)
