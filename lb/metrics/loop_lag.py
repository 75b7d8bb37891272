"""How long the event loop and the garbage collector keep everybody waiting."""

from __future__ import annotations

import asyncio
import gc
import time

from lb.metrics.histogram import PAUSE_S, Histogram

INTERVAL_S = 0.1
"""Between two looks: ten a second find a pause of 100 ms always and one of 10 ms every tenth time, for 0.1 % CPU."""


class PauseWatch:
    """Measures both pauses; `run` is the task for the loop, `start` and `stop` hook into the collector."""

    def __init__(self) -> None:
        self.loop_lag_s = Histogram(PAUSE_S)
        self.loop_lag_max_s = 0.0
        """Since the last reading, which sets it back."""
        self.gc_pause_s = Histogram(PAUSE_S)
        self._gc_began = 0.0

    async def run(self, interval_s: float = INTERVAL_S) -> None:
        """Sleep and see how late the wake-up comes, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + interval_s
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            now = loop.time()
            self.observe_lag(max(0.0, now - due))
            due = now + interval_s

    def observe_lag(self, lag_s: float) -> None:
        self.loop_lag_s.observe(lag_s)
        self.loop_lag_max_s = max(self.loop_lag_max_s, lag_s)

    def take_max(self) -> float:
        highest, self.loop_lag_max_s = self.loop_lag_max_s, 0.0
        return highest

    def start(self) -> None:
        if self._collected not in gc.callbacks:
            gc.callbacks.append(self._collected)

    def stop(self) -> None:
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_began = time.perf_counter()
        else:
            self.gc_pause_s.observe(time.perf_counter() - self._gc_began)
