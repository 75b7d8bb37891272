"""Deadlines for tens of thousands of connections at the price of an attribute write.

A connection moves its deadline with nearly every read. Arming a timer each time would cost more than the read, so a
connection stands in at most one bucket of a coarse wheel; when the bucket comes up and the deadline has moved on, it
is put into a later one.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK_S = 0.05
"""Deadlines fire up to this much late, which is nothing beside the shortest of them (connect: 1 s)."""
NEVER = float("inf")
_AHEAD = int(5.0 / TICK_S)
"""Buckets are at most 5 s ahead: a connection that is long closed would be kept by its bucket until that comes up."""


class Timed(Protocol):
    """Something with a deadline. `deadline_at` may be moved later freely; to move it earlier call `Deadlines.set`."""

    deadline_at: float
    bucket_at: float
    """When the wheel will next look at it; NEVER if it stands in no bucket."""

    def on_deadline(self, now: float) -> None:
        """The deadline has passed."""


class Deadlines:
    """The wheel; one per event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, list[Timed]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._done = int(loop.time() / TICK_S)

    def set(self, item: Timed, at: float) -> None:
        """Make `at` the deadline of `item`; NEVER disarms."""
        item.deadline_at = at
        if at >= item.bucket_at or at == NEVER:
            return
        bucket = min(max(int(at / TICK_S), self._done), int(self._loop.time() / TICK_S) + _AHEAD) + 1
        bucket_at = bucket * TICK_S
        if bucket_at >= item.bucket_at:
            return
        item.bucket_at = bucket_at
        self._buckets.setdefault(bucket, []).append(item)
        if self._timer is None:
            self._done = int(self._loop.time() / TICK_S)
            self._timer = self._loop.call_later(TICK_S, self._turn)

    def _turn(self) -> None:
        now = self._loop.time()
        current = int(now / TICK_S)
        for bucket in range(self._done + 1, current + 1):
            bucket_at = bucket * TICK_S
            for item in self._buckets.pop(bucket, ()):
                if item.bucket_at != bucket_at:
                    continue  # it has moved to an earlier bucket meanwhile, and from there on
                item.bucket_at = NEVER
                if item.deadline_at <= now:
                    item.deadline_at = NEVER
                    item.on_deadline(now)
                else:
                    self.set(item, item.deadline_at)
        self._done = current
        self._timer = self._loop.call_later(TICK_S, self._turn) if self._buckets else None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
