"""The tasks that a daemon consists of: each has a name, and none of them may end unnoticed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger(__name__)


class RootTasks:
    """Runs named tasks. `failed` is set when one ends that nobody stopped; the daemon then ends too, so that whoever
    supervises it starts it whole."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.failed = asyncio.Event()
        self.failed_name: str | None = None

    def start(self, name: str, work: Coroutine[object, object, None]) -> None:
        """Run `work` under this name, which must be free."""
        assert name not in self._tasks, name
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def stop(self, name: str) -> None:
        """Cancel one; its name is free at once."""
        task = self._tasks.pop(name)
        self._leaving.add(task)
        task.cancel()

    async def stop_all(self) -> None:
        """Cancel all and wait until they are gone."""
        for name in list(self._tasks):
            self.stop(name)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._leaving:
            self._leaving.discard(task)
            if not task.cancelled() and task.exception() is not None:
                log.error(
                    "a task failed while it was stopped", exc_info=task.exception(), extra={"task": task.get_name()}
                )
            return
        error = None if task.cancelled() else task.exception()
        log.error("a root task ended unasked, so the process ends", exc_info=error, extra={"task": task.get_name()})
        if self.failed_name is None:
            self.failed_name = task.get_name()
        self.failed.set()
