"""Keeps a candidate's lease: looks, renews, takes over, gives back. Decides nothing; `autoscaler.leader` does."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from autoscaler.leader import Election, LeaseRecord, Write
from autoscaler.policy.lease import LeaseSettings

log = logging.getLogger(__name__)
_JITTER = 0.1
"""Share by which waits between calls are shortened at random, so that candidates do not march in step."""
_LONGEST_BACKOFF_S = 10.0
"""Wait after repeated errors; below the usual fence, so that a holder still renews in time when the API returns."""


def suspend_clock() -> float:
    """Monotonic seconds that go on while the machine is suspended, where there is such a clock (Linux)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class LeaseConflictError(Exception):
    """The precondition of a write did not hold."""


class LeaseUnreachableError(Exception):
    """The store did not answer, or not with what was asked for. What was written may have been stored."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class LeaseStore(Protocol):
    """Where the lease is. Each call raises LeaseUnreachableError, and ends within its own deadline."""

    async def read(self) -> LeaseRecord | None:
        """The record; None: there is none."""
        ...

    async def write(self, record: LeaseRecord) -> LeaseRecord:
        """Store it if the stored version is `record.version` (None: there is none), else LeaseConflictError.

        Returns it with its new version.
        """
        ...


class LeaderLoop:
    """One candidate. `leads()` is right at any instant, however late the loop runs."""

    def __init__(
        self, settings: LeaseSettings, identity: str, store: LeaseStore, *,
        clock: Callable[[], float] = suspend_clock, rng: random.Random | None = None,
        changed: Callable[[bool], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._election = Election(settings, identity)
        self._store = store
        self._clock = clock
        self._rng = rng or random.Random()
        self._changed = changed
        """Told of every beginning and end of leadership; the end may already be past."""
        self._told = False
        self._failures = 0

    def leads(self) -> bool:
        """Whether this process may act now. Ask before every write, not once a tick."""
        return self._election.leads(self._clock())

    @property
    def term(self) -> int:
        """Number of this leadership."""
        return self._election.term

    @property
    def holder(self) -> str:
        """Who leads, as far as known."""
        return self._election.holder

    async def run(self) -> None:
        """Until cancelled. Call `give_back` afterwards, once nothing is being done any more."""
        while True:
            wait_s = await self._round()
            await self._tell()
            await self._sleep(wait_s)

    async def give_back(self) -> None:
        """Let another take over without waiting for the lease to run out. A failure costs only that wait."""
        write = self._election.give_back()
        if write is None:
            return
        try:
            await asyncio.wait_for(self._store.write(write.record), self._settings.call_s)
        except (LeaseConflictError, LeaseUnreachableError, TimeoutError) as error:
            log.warning("the lease could not be given back and runs out by itself", extra={"reason": str(error)})

    async def _sleep(self, wait_s: float) -> None:
        """Wait; a leadership that ends meanwhile is told of in time, and costs no call."""
        until = self._election.acts_until()
        left_s = until - self._clock() if until is not None else -1.0
        if 0.0 <= left_s < wait_s:
            await asyncio.sleep(left_s + 0.001)
            await self._tell()
            wait_s -= left_s
        await asyncio.sleep(wait_s)

    async def _round(self) -> float:
        """One look, one write if there is reason for it; returns how long to wait."""
        election = self._election
        try:
            async with asyncio.timeout(self._settings.call_s):
                if election.must_look():
                    record = await self._store.read()
                    election.observe(record, self._clock())
                write = election.propose(self._clock())
                if write is not None:
                    await self._write(write)
        except (LeaseUnreachableError, TimeoutError) as error:
            election.refused()
            return self._after_failure(error)
        self._failures = 0
        now = self._clock()
        wait_s = election.wake_at(now) - now
        return wait_s * (1.0 - _JITTER * self._rng.random()) if election.leads(now) else wait_s

    async def _write(self, write: Write) -> None:
        sent_at = self._clock()
        try:
            stored = await self._store.write(write.record)
        except LeaseConflictError:
            self._election.refused()
            return
        self._election.stored(stored, sent_at, self._clock())

    def _after_failure(self, error: Exception) -> float:
        self._failures += 1
        retry_s = self._settings.retry_s
        wait_s = min(
            retry_s * 2.0 ** (self._failures - 1), max(retry_s, min(_LONGEST_BACKOFF_S, self._settings.fence_s / 3))
        )
        wait_s *= 1.0 - _JITTER * self._rng.random()
        told = getattr(error, "retry_after_s", None)
        if told is not None:
            wait_s = max(wait_s, told)
        if self._failures == 1:
            log.warning("the lease cannot be reached", extra={"reason": str(error) or "no answer in time"})
        return wait_s

    async def _tell(self) -> None:
        leads = self.leads()
        if leads == self._told:
            return
        self._told = leads
        if leads:
            log.info("this controller leads now", extra={"term": self.term})
        else:
            log.warning("this controller no longer leads", extra={"holder": self.holder})
        if self._changed is not None:
            await self._changed(leads)
