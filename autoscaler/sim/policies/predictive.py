"""Only prediction: the demand of a week (or a day) ago, whatever comes. Nothing reacts to what is there now."""

from __future__ import annotations

from math import ceil

from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster

_DAY_S = 86_400
_STEP_S = 300
_HOLD_S = 900
"""Nothing is given back that is wanted again so soon."""


class Predictive:
    """Where there is less than a day of history, the last five minutes are all that it has to go by."""

    name = "predictive"
    tick_s = 60.0
    stops = False

    def __init__(self, knob: float, setting: Setting) -> None:
        self.start = setting.start()
        self._setting = setting
        self._knob = knob

    def tick(self, reading: Reading, roster: Roster) -> None:
        setting = self._setting
        ahead_s = int(setting.scenario.p95_s) + _HOLD_S
        now = setting.load.start + int(reading.now)
        week, day = 7 * _DAY_S, _DAY_S
        back = week if now >= week else day if now >= day else 0
        begin, end = (now - back, now - back + ahead_s) if back else (max(0, now - _STEP_S), now)
        seen = setting.load.arrivals[begin : max(end, begin + 1)]
        whole = max(1, len(seen) // _STEP_S)
        highest = max(float(part.mean()) for part in (seen[i * _STEP_S : (i + 1) * _STEP_S] for i in range(whole)))
        wanted = ceil(highest / (self._knob * setting.per_replica) - 1e-9)
        roster.scale_to(max(1, min(setting.max_replicas, wanted)), reading.now)
