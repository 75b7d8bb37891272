"""Always as many as the peak takes."""

from __future__ import annotations

from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster


class Maximum:
    """The knob is the share of the peak that is used: less buys headroom."""

    name = "max"
    tick_s = 3600.0
    stops = False

    def __init__(self, knob: float, setting: Setting) -> None:
        self.start = max(1, min(setting.max_replicas, round(setting.peak / knob)))

    def tick(self, reading: Reading, roster: Roster) -> None:
        roster.scale_to(self.start, reading.now)
