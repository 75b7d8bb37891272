"""Knative's pod autoscaler: a stable and a panic window over concurrency."""

from __future__ import annotations

from collections import deque
from math import ceil, floor

from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster

_STABLE_S = 60.0
_PANIC_S = 6.0
_PANIC_AT = 2.0
_UTILISATION = 0.7
_UP_RATE = 1000.0
_DOWN_RATE = 2.0
_DOWN_DELAY_S = 300.0
"""The tuned variant: with the default of 0 s it lets go within every lull."""


class Kpa:
    """With the tuned delay before it scales down."""

    name = "kpa"
    tick_s = 2.0
    stops = False

    def __init__(self, knob: float, setting: Setting) -> None:
        self.start = setting.start()
        # Its own default aims at 0.7 of what a replica holds; the knob moves that.
        self._target = knob * _UTILISATION * setting.slots
        self._max = setting.max_replicas
        self._samples: deque[tuple[float, float]] = deque()
        self._panic_until = -1.0
        self._panic_size = 0
        self._delayed: deque[tuple[float, int]] = deque()

    def tick(self, reading: Reading, roster: Roster) -> None:
        if reading.in_flight is None or reading.queued is None:
            return
        now = reading.now
        self._samples.append((now, reading.in_flight + reading.queued))
        while self._samples[0][0] <= now - _STABLE_S:
            self._samples.popleft()
        stable = sum(value for _, value in self._samples) / len(self._samples)
        recent = [value for at, value in self._samples if at > now - _PANIC_S]
        ready = max(1, reading.ready)
        most, least = ceil(_UP_RATE * ready), floor(ready / _DOWN_RATE)
        want_stable = min(max(ceil(stable / self._target), least), most)
        want_panic = min(max(ceil(sum(recent) / len(recent) / self._target), least), most)
        if want_panic / ready >= _PANIC_AT:
            self._panic_until = now + _STABLE_S
        if now < self._panic_until:
            self._panic_size = max(self._panic_size, want_panic, want_stable, ready)
            wanted = self._panic_size
        else:
            self._panic_size = 0
            wanted = want_stable
        delayed = self._delayed
        while delayed and delayed[-1][1] <= wanted:
            delayed.pop()
        delayed.append((now, wanted))
        while delayed[0][0] < now - _DOWN_DELAY_S:
            delayed.popleft()
        roster.scale_to(max(1, min(self._max, delayed[0][1])), now)
