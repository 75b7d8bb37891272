"""Ray Serve: ongoing requests per replica over 30 s, up after 30 s and down after 600 s of agreement."""

from __future__ import annotations

from collections import deque
from math import ceil

from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster

_LOOK_BACK_S = 30.0
_UP_S = 30.0
_DOWN_S = 600.0


class Ray:
    """Replicas for the mean of ongoing requests over the look-back."""

    name = "ray"
    tick_s = 10.0
    """Its control loop pushes metrics every 10 s."""
    stops = False

    def __init__(self, knob: float, setting: Setting) -> None:
        self.start = setting.start()
        self._target = knob * setting.concurrency
        self._max = setting.max_replicas
        self._samples: deque[tuple[float, float]] = deque()
        self._since = 0.0
        self._direction = 0

    def tick(self, reading: Reading, roster: Roster) -> None:
        if reading.in_flight is None or reading.queued is None:
            return
        now, current = reading.now, roster.wanted
        self._samples.append((now, reading.in_flight + reading.queued))
        while self._samples[0][0] <= now - _LOOK_BACK_S:
            self._samples.popleft()
        ongoing = sum(value for _, value in self._samples) / len(self._samples)
        wanted = max(1, min(self._max, ceil(ongoing / self._target - 1e-9)))
        direction = (wanted > current) - (wanted < current)
        if direction != self._direction:
            self._direction, self._since = direction, now
        if (direction > 0 and now - self._since >= _UP_S) or (direction < 0 and now - self._since >= _DOWN_S):
            roster.scale_to(wanted, now)
