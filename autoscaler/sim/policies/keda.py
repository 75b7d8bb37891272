"""KEDA on the total of queued and running requests (AverageValue), then the HPA's rules; no value counts as none."""

from __future__ import annotations

from math import ceil

from autoscaler.sim.policies.hpa import HpaRules
from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster

_TOLERANCE = 0.1


class Keda:
    """A missing value is zero, its default (`ignoreNullValues`)."""

    name = "keda"
    tick_s = 30.0
    """Its polling interval."""
    stops = False

    def __init__(self, knob: float, setting: Setting) -> None:
        self.start = setting.start()
        self._target = knob * setting.concurrency
        self._rules = HpaRules(setting.max_replicas)

    def tick(self, reading: Reading, roster: Roster) -> None:
        total = (reading.in_flight or 0.0) + (reading.queued or 0.0)
        current = roster.wanted
        # AverageValue divides by the pods that there are, ready or not.
        ratio = total / (max(current, 1) * self._target)
        recommended = current if abs(ratio - 1.0) <= _TOLERANCE else ceil(total / self._target - 1e-9)
        roster.scale_to(self._rules.size(current, recommended, reading.now), reading.now)
