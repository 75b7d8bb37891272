"""Tasks that do not die silently: one per replica, named, restarted after a crash, gone when the replica is."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from lb.endpoint import Endpoint

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_CALM_S = 60.0
"""A task that ran this long before it crashed starts with the first pause again."""
_SPREAD_S = 0.005
"""Each replica adds this much to the span over which first requests are spread: 200 replicas are asked over 1 s, one
alone is asked at once."""


async def guarded(name: str, run: Callable[[], Awaitable[None]], rng: random.Random) -> None:
    """Run until cancelled. A crash, or an end that nobody asked for, is logged and followed by a new start."""
    loop = asyncio.get_running_loop()
    pause_s = _FIRST_PAUSE_S
    while True:
        started = loop.time()
        try:
            await run()
            _LOG.error("%s ended by itself, which it must not; it starts again", name)
        except asyncio.CancelledError:
            raise
        except Exception:
            _LOG.exception("%s crashed; it starts again", name)
        if loop.time() - started > _CALM_S:
            pause_s = _FIRST_PAUSE_S
        await asyncio.sleep(pause_s * rng.uniform(0.5, 1.5))
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def first_delay_s(interval_s: float, replicas: int, rng: random.Random) -> float:
    """When to ask a new replica for the first time: soon, and not all of them at once."""
    return rng.random() * min(interval_s, replicas * _SPREAD_S)


class ReplicaTasks:
    """Keeps one guarded task per endpoint, following a set that changes.

    An endpoint that changed in any field is another one: its task starts anew.
    """

    def __init__(self, kind: str, run: Callable[[Endpoint, int], Awaitable[None]], rng: random.Random) -> None:
        """`run(endpoint, replicas)` is the life of one task; `replicas` is how many there are when it starts."""
        self._kind = kind
        self._run = run
        self._rng = rng
        self._tasks: dict[str, tuple[Endpoint, asyncio.Task[None]]] = {}
        self._open = True

    def follow(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Start and cancel tasks so that there is one for each of `endpoints`."""
        if not self._open:
            return
        wanted = {endpoint.id: endpoint for endpoint in endpoints}
        for replica_id, (endpoint, task) in list(self._tasks.items()):
            if wanted.get(replica_id) != endpoint:
                task.cancel()
                del self._tasks[replica_id]
        for replica_id, endpoint in wanted.items():
            if replica_id not in self._tasks:
                self._tasks[replica_id] = (endpoint, self._start(endpoint, len(wanted)))

    def _start(self, endpoint: Endpoint, replicas: int) -> asyncio.Task[None]:
        name = f"{self._kind}:{endpoint.id}"
        return asyncio.create_task(guarded(name, lambda: self._run(endpoint, replicas), self._rng), name=name)

    def __len__(self) -> int:
        return len(self._tasks)

    async def stop(self) -> None:
        """Cancel all and wait until they are gone."""
        self._open = False
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
