"""The load of a week (or a day) ago, 30 minutes ahead, joined with the HPA by maximum (the recipe of grafana/mimir)."""

from __future__ import annotations

from math import ceil

from autoscaler.sim.policies.hpa import HpaRules, by_ratio
from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster

_DAY_S = 86_400
_AHEAD_S = 1800
_HALF_S = 150


class Seasonal:
    """Adds capacity for what was, and never takes away what is needed now."""

    name = "seasonal"
    tick_s = 15.0
    stops = False

    def __init__(self, knob: float, setting: Setting) -> None:
        self.start = setting.start()
        self._setting = setting
        self._knob = knob
        self._target = knob * setting.concurrency
        self._rules = HpaRules(setting.max_replicas)

    def tick(self, reading: Reading, roster: Roster) -> None:
        current = roster.wanted
        recommended = current
        if reading.in_flight is not None and reading.queued is not None:
            recommended = by_ratio(current, reading.ready, reading.in_flight + reading.queued, self._target)
        recommended = max(recommended, self._then(int(reading.now)))
        roster.scale_to(self._rules.size(current, recommended, reading.now), reading.now)

    def _then(self, now: int) -> int:
        """Replicas for the demand a week ago (a day, where the past is shorter) and half an hour on."""
        load = self._setting.load
        at = load.start + now + _AHEAD_S
        back = 7 * _DAY_S if at - 7 * _DAY_S >= _HALF_S else _DAY_S
        middle = at - back
        if middle < _HALF_S:
            return 0
        then = float(load.arrivals[middle - _HALF_S : middle + _HALF_S].mean())
        return ceil(then / (self._knob * self._setting.per_replica) - 1e-9)
