"""Drives a replica model by the wall clock: model time runs `speed` times faster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from math import inf
from typing import Protocol

from autoscaler.sim.replica import EventKind, Replica, ReplicaModel, SimRequest


class Job(Protocol):
    """One request in the engine."""

    request: SimRequest
    streams: bool

    def first_token(self, at_s: float, cached_tokens: int) -> None: ...

    def tokens(self, generated: int) -> None:
        """So many tokens are there now; called for streams only."""

    def finished(self, at_s: float) -> None: ...


class Engine:
    """Model clock, timer and the jobs of one replica."""

    def __init__(self, model: ReplicaModel, speed: float, flush_s: float) -> None:
        self.replica = Replica(model)
        self.speed = speed
        self.stalled = False
        """While true nothing moves (a hung engine)."""
        self.late_s_max = 0.0
        """Worst delay of a wake-up in wall seconds: above a few ms this process does not keep up."""
        self._flush = flush_s * speed
        self._jobs: dict[Hashable, Job] = {}
        self._streaming: dict[Hashable, Job] = {}
        self._flushed_at = -inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._loop = asyncio.get_running_loop()
        # Not the loop's clock: uvloop's counts whole milliseconds.
        self._origin = time.monotonic()
        self._latest = 0.0

    def now(self) -> float:
        """Model seconds since the start; never goes back."""
        if not self.stalled:
            self._latest = max(self._latest, (time.monotonic() - self._origin) * self.speed)
        return self._latest

    @property
    def in_flight(self) -> int:
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        """Raises PromptTooLongError."""
        self.replica.submit(job.request, self.now())
        self._jobs[job.request.id] = job
        self._arm()

    def cancel(self, job: Job) -> None:
        """The client has left: slot and memory are free at once."""
        if self._jobs.pop(job.request.id, None) is not None:
            self._streaming.pop(job.request.id, None)
            self.replica.cancel(job.request.id, self.now())
            self._arm()

    def catch_up(self) -> None:
        """Do what is due: timers come up to a millisecond late, later on a busy machine, and a reading in between
        would take a request for waiting that the model has admitted long ago."""
        if self._timer is not None and self._timer_at <= self.now():
            self._timer.cancel()
            self._wake()

    def set_slow_factor(self, factor: float) -> None:
        self.replica.set_slow_factor(factor, self.now())
        self._arm()

    def set_stalled(self, stalled: bool) -> None:
        """Stop the model clock, or let it go on from where it stopped."""
        if stalled == self.stalled:
            return
        self.now()
        self.stalled = stalled
        self._origin = time.monotonic() - self._latest / self.speed
        self._arm()

    def _arm(self) -> None:
        at = inf if self.stalled else self.replica.next_event_at()
        if self._streaming and not self.stalled:
            at = min(at, max(self.replica.next_step_at(self.now()), self._flushed_at + self._flush))
        if at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at < inf:
            delay_s = self._origin + at / self.speed - time.monotonic()
            self._timer = self._loop.call_later(max(0.0, delay_s), self._wake)

    def _wake(self) -> None:
        now = self.now()
        self.late_s_max = max(self.late_s_max, (now - self._timer_at) / self.speed)
        # Timers of the loop have a resolution of 1 ms and may come that much early.
        self._latest = now = max(now, self._timer_at)
        self._timer, self._timer_at = None, inf
        for event in self.replica.advance(now):
            job = self._jobs.get(event.request_id)
            if job is None:
                continue
            if event.kind is EventKind.FIRST_TOKEN:
                job.first_token(event.at_s, event.cached_tokens)
                if job.streams and job.request.output_tokens > 1:
                    self._streaming[event.request_id] = job
            else:
                del self._jobs[event.request_id]
                self._streaming.pop(event.request_id, None)
                job.finished(event.at_s)
        if self._streaming and now >= self._flushed_at + self._flush:
            self._flushed_at = now
            for key, job in list(self._streaming.items()):
                job.tokens(self.replica.generated_tokens(key, now))
        self._arm()
