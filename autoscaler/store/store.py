"""The store as the daemon uses it: one thread does all that touches the disk, and the event loop never waits for it.

Writes are handed over and return at once; a disk that hangs fills a bounded backlog, beyond which they are dropped and
counted. Reads are awaited.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from autoscaler.store.file import StoreFile, set_aside
from autoscaler.store.rows import Bin, StoredDecision, StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")
_MOST_BACKLOG = 5000
"""Writes that may wait for the disk: an hour of ten pools at the usual interval."""
_CLOSE_S = 10.0
"""For the rest of the backlog at the end of the process."""
_EXPIRE_EVERY_S = 600.0
_SAY_EVERY_S = 300.0
"""A disk that is full fails every write; one line in five minutes tells of it."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept, in seconds."""

    bins_s: float = 56 * 86_400.0
    notable_s: float = 30 * 86_400.0
    ordinary_s: float = 86_400.0


@dataclass(slots=True)
class StoreCounts:
    """For metrics."""

    written: int = 0
    failed: int = 0
    """Writes that the disk or the file refused."""
    dropped: int = 0
    """Writes that were not tried, as too many waited."""


class Store:
    """Made by `Store(...)`, usable after `await start()`, ended by `await close()`."""

    def __init__(self, path: Path | None, *, wall: Callable[[], float], retention: Retention | None = None) -> None:
        self.path = path
        self.counts = StoreCounts()
        self.retention = retention or Retention()
        """May be replaced at any time."""
        self._wall = wall
        self._queue: SimpleQueue[tuple[Callable[[StoreFile], object], Future[object] | None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._file: StoreFile | None = None
        self._expired_at = float("-inf")
        self._said_at = float("-inf")

    async def start(self) -> None:
        """Open it. Raises StoreError when it cannot be used."""
        opened: Future[object] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="tidegate-store", daemon=True)
        self._thread.start()
        await asyncio.wrap_future(opened)

    async def close(self) -> None:
        """Write what waits, for a bounded time."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, _CLOSE_S)
            self._thread = None

    # ------------------------------------------------------------------ writes

    def record_bins(self, bins: Iterable[Bin], *, keep: bool = False) -> None:
        """Store minutes of demand. `keep`: what is there already stays, which is what back-filling wants."""
        rows = tuple(bins)
        if rows:
            self._write(lambda file: file.put_bins(rows, keep=keep))

    def save_state(self, name: str, state: Mapping[str, object]) -> None:
        """Replace a state of this name; JSON."""
        text, at = json.dumps(state), self._wall()
        self._write(lambda file: file.put_state(name, text, at))

    def record_decisions(self, decisions: Iterable[StoredDecision]) -> None:
        rows = tuple(decisions)
        if rows:
            self._write(lambda file: file.put_decisions(rows))

    # ------------------------------------------------------------------ reads

    async def bins(self, model: str, since_s: float, until_s: float | None = None) -> list[Bin]:
        """Minutes of one model that start in [since_s, until_s) (epoch seconds), in order; gaps are missing."""
        return await self._read(lambda file: file.bins(model, since_s, until_s))

    async def models(self) -> list[str]:
        """Models with any history."""
        return await self._read(lambda file: file.models())

    async def load_state(self, name: str) -> tuple[float, dict[str, object]] | None:
        """(when it was saved, in epoch seconds; the state), None: there is none."""
        return await self._read(lambda file: file.state(name))

    async def decisions(
        self, pool: str, since_s: float = 0.0, until_s: float = 1e18, limit: int = 100
    ) -> list[StoredDecision]:
        """Decisions within [since_s, until_s] (epoch seconds), newest first."""
        return await self._read(lambda file: file.decisions(pool, since_s, until_s, limit))

    async def decision(self, pool: str, at: float) -> StoredDecision | None:
        """The decision in force at `at` (epoch seconds)."""
        return await self._read(lambda file: file.decision(pool, at))

    # ------------------------------------------------------------------ the thread

    def _write(self, work: Callable[[StoreFile], object]) -> None:
        if self._queue.qsize() >= _MOST_BACKLOG:
            self.counts.dropped += 1
            return
        self._queue.put((work, None))

    async def _read(self, work: Callable[[StoreFile], T]) -> T:
        if self._thread is None or not self._thread.is_alive():
            raise StoreError("the store is closed")
        answer: Future[T] = Future()
        self._queue.put((work, answer))  # type: ignore[arg-type]
        return await asyncio.wrap_future(answer)

    def _run(self, opened: Future[object]) -> None:
        try:
            self._file = StoreFile.open(self.path, wall=self._wall())
        except Exception as error:
            opened.set_exception(error)
            return
        opened.set_result(None)
        while (job := self._queue.get()) is not None:
            self._do(*job)
            self._expire()
        self._file.close()

    def _do(self, work: Callable[[StoreFile], object], answer: Future[object] | None) -> None:
        if answer is not None and not answer.set_running_or_notify_cancel():
            return
        assert self._file is not None
        try:
            result = work(self._file)
        except Exception as error:
            self._failed(error)
            if answer is not None:
                answer.set_exception(StoreError(f"the store {self.path or 'in memory'} failed: {error}"))
            else:
                self.counts.failed += 1
            return
        if answer is not None:
            answer.set_result(result)
        else:
            self.counts.written += 1

    def _failed(self, error: Exception) -> None:
        """A damaged file is exchanged at once; everything else may pass (a full disk)."""
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
        )
        now = self._wall()
        if damaged and self.path is not None:
            self._renew(str(error), now)
        elif abs(now - self._said_at) >= _SAY_EVERY_S:
            self._said_at = now
            log.error("the store could not be used", extra={"store": str(self.path), "reason": str(error)})

    def _renew(self, why: str, now: float) -> None:
        assert self._file is not None
        assert self.path is not None
        self._file.close()
        try:
            set_aside(self.path, why, now)
            self._file = StoreFile.open(self.path, wall=now)
        except StoreError as error:
            log.error("going on without a file until the next start", extra={"reason": str(error)})
            self.path = None
            self._file = StoreFile.open(None, wall=now)

    def _expire(self) -> None:
        now = self._wall()
        if abs(now - self._expired_at) < _EXPIRE_EVERY_S:
            return
        self._expired_at = now
        keep = self.retention
        assert self._file is not None
        try:
            self._file.expire(now - keep.bins_s, now - keep.notable_s, now - keep.ordinary_s)
        except sqlite3.Error as error:
            self._failed(error)
