"""As few replicas as possible, and many more as soon as it hurts: double when they are full, halve in a lull."""

from __future__ import annotations

from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster

_LULL = 0.4
"""Share of the target under which half of the replicas go; at half of it they would be full again at once."""
_LULL_S = 60.0


class Aggressive:
    """Starts with one replica. The knob is the share of the slots that makes it double."""

    name = "aggressive"
    tick_s = 5.0
    stops = False
    start = 1

    def __init__(self, knob: float, setting: Setting) -> None:
        self._full = knob * setting.concurrency
        self._max = setting.max_replicas
        self._lull_since: float | None = None

    def tick(self, reading: Reading, roster: Roster) -> None:
        if reading.in_flight is None or reading.queued is None:
            return
        used = (reading.in_flight + reading.queued) / max(1, reading.ready) / self._full
        if used >= _LULL:
            self._lull_since = None
        elif self._lull_since is None:
            self._lull_since = reading.now
        if used > 1.0 and not reading.starting:
            roster.scale_to(min(self._max, 2 * max(1, roster.wanted)), reading.now)
        elif self._lull_since is not None and reading.now - self._lull_since >= _LULL_S:
            roster.scale_to(max(1, -(-roster.wanted // 2)), reading.now)
            self._lull_since = None
