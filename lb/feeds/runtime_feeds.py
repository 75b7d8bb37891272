"""Probes and readings of one gateway, as one thing to start and stop."""

from __future__ import annotations

import random
import ssl

from lb.feeds.board import Board, FeedCounts
from lb.feeds.http import ProbeClient
from lb.feeds.prober import Prober
from lb.feeds.runtime_scraper import RuntimeScraper
from lb.feeds.sink import FeedSink
from lb.runtime import Conformance
from lb.settings import HealthSettings


class RuntimeFeeds:
    """Owns the clients, the prober and the scraper."""

    def __init__(
        self,
        sink: FeedSink,
        settings: HealthSettings,
        *,
        rng: random.Random,
        authorization: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`authorization`: header value that replicas want (`Bearer …`), resolved by the caller; `tls`: for https
        replicas, None verifies against the system's authorities."""
        self._probing = ProbeClient(tls=tls, fresh=True)
        self._reading = ProbeClient(tls=tls)
        self._board = Board()
        self._prober = Prober(sink, self._probing, self._board, settings, rng=rng, authorization=authorization)
        self._scraper = RuntimeScraper(sink, self._reading, self._board, settings, rng=rng, authorization=authorization)

    async def start(self) -> None:
        """Begin to ask. Must run on the loop that the sink lives on."""
        await self._probing.open()
        await self._reading.open()
        self._prober.start()
        self._scraper.start()

    async def stop(self) -> None:
        """Ask no more; returns when the last task has ended and every connection is closed."""
        await self._prober.stop()
        await self._scraper.stop()
        await self._probing.close()
        await self._reading.close()

    def reconfigure(self, settings: HealthSettings, *, authorization: str | None = None) -> None:
        """Use other intervals, or another key, from the next probe on."""
        for feed in (self._prober, self._scraper):
            feed.settings = settings
            feed.authorization = authorization

    def conformance(self, replica_id: str) -> Conformance | None:
        """What this replica turned out to tell; None before it was recognised."""
        return self._board.conformance(replica_id)

    @property
    def counts(self) -> FeedCounts:
        """Totals for the metrics."""
        return self._board.counts
