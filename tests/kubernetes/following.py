"""A source that runs, and what it has pushed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lb.clock import SYSTEM_CLOCK, Clock
from lb.endpoint import Endpoint
from lb.kube import Access, KubeApi
from lb.settings import KubernetesSource
from lb.sources.kubernetes import KubernetesReplicas


class Followed:
    """A running source and what it has pushed."""

    def __init__(self, source: KubernetesReplicas) -> None:
        self.source = source
        self.sets: list[tuple[Endpoint, ...]] = []
        self._changed = asyncio.Event()

    def push(self, endpoints: Sequence[Endpoint]) -> None:
        self.sets.append(tuple(endpoints))
        self._changed.set()

    @property
    def now(self) -> tuple[Endpoint, ...]:
        return self.sets[-1] if self.sets else ()

    @property
    def names(self) -> set[str]:
        return {endpoint.labels["pod"] for endpoint in self.now}

    async def until(self, holds: Callable[[], object], within_s: float = 10.0) -> float:
        """Seconds until it holds."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while not holds():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.05)
                self._changed.clear()
        return time.monotonic() - began


@asynccontextmanager
async def following(
    access: Access,
    namespace: str,
    *,
    clock: Clock = SYSTEM_CLOCK,
    connect: Callable[[Access], KubeApi] | None = None,
    **settings: Any,
) -> AsyncIterator[Followed]:
    """A source that runs, as the daemon runs it."""
    wanted = KubernetesSource(namespace=namespace, **settings)
    source = KubernetesReplicas(wanted, Path(), clock, runtimes=("vllm",), access=access, connect=connect)
    followed = Followed(source)
    task = asyncio.create_task(followed.source.run(followed.push))
    try:
        yield followed
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
