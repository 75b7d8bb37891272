"""Replicas listed in the policy or on the command line."""

from __future__ import annotations

import asyncio

from lb.clock import Clock
from lb.settings import BackendSettings
from lb.source import Push, SourceState, endpoint_of, unique


class StaticBackends:
    """A fixed list; another list is another source."""

    def __init__(self, backends: tuple[BackendSettings, ...], clock: Clock) -> None:
        self.name = "static"
        self.settings = backends
        self.state = SourceState()
        self._clock = clock
        self.endpoints = unique(endpoint_of(backend) for backend in backends)

    async def run(self, push: Push) -> None:
        push(self.endpoints)
        self.state.endpoints = len(self.endpoints)
        self.state.refreshed_at = self._clock.monotonic()
        await asyncio.Event().wait()
