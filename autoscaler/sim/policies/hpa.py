"""The Kubernetes HorizontalPodAutoscaler on concurrency per pod, with its default behaviour."""

from __future__ import annotations

from collections import deque
from math import ceil

from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster

_TOLERANCE = 0.1
_STEP_PODS = 4
_DOWN_WINDOW_S = 300.0


class HpaRules:
    """From a recommendation to a size: up at most max(100 %, 4 pods) in 15 s, down to the highest recommendation of
    the last 300 s."""

    def __init__(self, max_replicas: int) -> None:
        self._max = max_replicas
        self._recent: deque[tuple[float, int]] = deque()

    def size(self, current: int, recommended: int, now: float) -> int:
        recent = self._recent
        while recent and recent[-1][1] <= recommended:
            recent.pop()
        recent.append((now, recommended))
        while recent[0][0] < now - _DOWN_WINDOW_S:
            recent.popleft()
        if recommended > current:
            wanted = min(recommended, current + max(current, _STEP_PODS))
        else:
            wanted = min(current, recent[0][1])
        return max(1, min(self._max, wanted))


def by_ratio(current: int, ready: int, total: float, target: float) -> int:
    """`ceil(N x average / target)` with tolerance; pods that are not ready count as using nothing on the way up."""
    if not ready or target <= 0.0:
        return current
    ratio = total / ready / target
    if abs(ratio - 1.0) <= _TOLERANCE:
        return current
    if ratio > 1.0 and current > ready:
        with_all = total / current / target
        if with_all <= 1.0 + _TOLERANCE:
            return current
        return max(current, ceil(current * with_all - 1e-9))
    return ceil(ready * ratio - 1e-9)


class Hpa:
    """Concurrency is what runs and what waits, as a metric of requests in flight has it."""

    name = "hpa"
    tick_s = 15.0
    stops = False

    def __init__(self, knob: float, setting: Setting) -> None:
        self.start = setting.start()
        self._target = knob * setting.concurrency
        self._rules = HpaRules(setting.max_replicas)

    def tick(self, reading: Reading, roster: Roster) -> None:
        if reading.in_flight is None or reading.queued is None:
            # Any metric that cannot be had: no scaling down, and nothing to scale up on.
            return
        current = roster.wanted
        # Concurrency as a pod reports it: what runs and what waits for it.
        recommended = by_ratio(current, reading.ready, reading.in_flight + reading.queued, self._target)
        roster.scale_to(self._rules.size(current, recommended, reading.now), reading.now)
