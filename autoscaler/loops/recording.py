"""Demand by the minute: reads the balancer's counters, keeps the minutes in memory for forecasts and in the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from autoscaler.store import Bin, Store, StoreError
from forecaster.history import BIN_S, BINS_MOST, Counters, History, Row
from lb.clock import Clock
from lb.views import DemandView

log = logging.getLogger(__name__)

EVERY_S = 15.0
"""Four readings a minute: what comes between two is spread evenly, so that a bin is right to a quarter of a minute."""
_AT_ONCE_S = 86_400
"""Of the past, read and taken back between two breaths of the event loop: 4 ms of CPU. Whole histories would also be a
million objects for the garbage collector to walk through, which holds everybody up for 0.1 s each time."""


class Recorder:
    """Fills `history`, which the forecasting loop reads, and what a restart needs of it."""

    def __init__(self, demand: Callable[[float], DemandView], store: Store, clock: Clock) -> None:
        """`demand`: the balancer's counters at a monotonic instant."""
        self.history = History()
        self._demand = demand
        self._store = store
        self._clock = clock
        self._stored_until = 0
        """Epoch second before which all minutes are in the store."""

    async def recall(self) -> int:
        """Take back what the store has. Returns how many minutes."""
        now = self._clock.wall()
        first, end = int(now) - BINS_MOST * BIN_S, int(now) + 1
        taken = 0
        try:
            for model in await self._store.models():
                for begin in range(first, end, _AT_ONCE_S):
                    bins = await self._store.bins(model, begin, min(begin + _AT_ONCE_S, end))
                    taken += self.history.load(map(_row, bins), now_s=now)
        except StoreError as error:
            log.warning("demand history was not read; it begins anew", extra={"reason": str(error)})
        self._stored_until = int(now // BIN_S) * BIN_S
        return taken

    def look(self) -> None:
        """Read the counters once, and store the minutes that are over."""
        mono, wall = self._clock.monotonic(), self._clock.wall()
        for model, seen in self._demand(mono).models.items():
            counters = Counters(seen.offered_total, seen.prompt_tokens_total, seen.output_tokens_total)
            self.history.observe(model, counters, wall_s=wall, mono_s=mono)
        end = int(wall // BIN_S) * BIN_S
        if end != self._stored_until:
            since = min(self._stored_until, end - BIN_S)
            self._store.record_bins([_bin(row) for row in self.history.dump(now_s=wall, since_s=since)])
            self._stored_until = end

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(EVERY_S)


def _row(one: Bin) -> Row:
    return Row(one.model, one.start_s, one.requests, one.prompt_tokens, one.output_tokens)


def _bin(row: Row) -> Bin:
    return Bin(row.key, row.start_s, row.requests, row.prompt_tokens, row.output_tokens)
