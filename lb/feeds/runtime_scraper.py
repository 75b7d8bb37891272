"""Readings of each replica's own load, twice a second, one at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from lb.endpoint import Endpoint
from lb.feeds.board import Board, Found
from lb.feeds.guard import ReplicaTasks, first_delay_s
from lb.feeds.http import FetchError, OwnStallError, ProbeClient
from lb.feeds.sink import FeedSink
from lb.runtime import Conformance, LoadSource, RuntimeLoad
from lb.runtime_reader import LoadReader, Reading
from lb.runtimes import RUNTIMES
from lb.settings import HealthSettings

_LOG = logging.getLogger(__name__)
READINGS_PER_S = 50.0
"""Most readings a second over all replicas: beyond `scrape_interval_s * 50` replicas each is read less often. One
costs about half a millisecond of the event loop with vLLM's 48 KB, so this is some 2 % of a core at most; between
two readings the balancer counts its own dispatches anyway."""
LONGEST_INTERVAL_S = 4.0
"""However many replicas there are: the balancer believes a reading for 5 s."""
LONGEST_PAUSE_S = 10.0
"""Between attempts on a replica that tells nothing."""
_BUSY = 2.0
"""A reading that took t is followed by a pause of at least this many t: a slow replica is not made slower."""
_JITTER = 0.1
_LOAD_FIELDS = frozenset(RuntimeLoad.__dataclass_fields__) - {"inferred"}


@dataclass(slots=True)
class _Read:
    """One replica between two readings."""

    endpoint: Endpoint
    found: Found
    reader: LoadReader | None = None
    """Of the source that works; None: none does, or none was tried."""
    url: str = ""
    misses: int = 0
    conformance: Conformance | None = None
    readers: dict[str, LoadReader] = field(default_factory=dict)


class RuntimeScraper:
    """One task per replica, which begins when the prober has recognised it."""

    def __init__(
        self,
        sink: FeedSink,
        client: ProbeClient,
        board: Board,
        settings: HealthSettings,
        *,
        rng: random.Random,
        authorization: str | None = None,
    ) -> None:
        """`authorization` is sent to the replica's own address only, never to a metrics URL elsewhere."""
        self.settings = settings
        self.authorization = authorization
        self._sink = sink
        self._client = client
        self._board = board
        self._rng = rng
        self._tasks = ReplicaTasks("read", self._live, rng)

    def start(self) -> None:
        """Follow the sink's endpoints from now on."""
        self._sink.on_endpoints(self._tasks.follow)
        self._tasks.follow(self._sink.endpoints())

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _live(self, endpoint: Endpoint, replicas: int) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(first_delay_s(self.settings.scrape_interval_s, replicas, self._rng))
        state: _Read | None = None
        while True:
            found = await self._board.known(endpoint.id)
            if state is None or state.found is not found:
                state = _Read(endpoint, found)
            started = loop.time()
            try:
                reading = await self.read(state)
            except OwnStallError as error:
                _LOG.warning("replica %s: a reading is not counted, %s", endpoint.id, error)
            else:
                self._report(state, reading)
            took_s = loop.time() - started
            pause_s = max(0.0, self._pause_s(state, took_s) - took_s)
            if state.misses:
                await self._board.pause(endpoint.id, found, pause_s)
            else:
                await asyncio.sleep(pause_s)

    def _pause_s(self, state: _Read, took_s: float) -> float:
        """From the start of one reading to the start of the next."""
        interval_s = max(self.settings.scrape_interval_s, min(len(self._tasks) / READINGS_PER_S, LONGEST_INTERVAL_S))
        beyond = state.misses - self.settings.scrape_stale
        if beyond > 0:
            interval_s = max(interval_s, min(interval_s * 2.0 ** min(beyond, 16), LONGEST_PAUSE_S))
        interval_s *= self._rng.uniform(1 - _JITTER, 1 + _JITTER)
        return max(interval_s, took_s * (1 + _BUSY))

    async def read(self, state: _Read) -> Reading:
        """One reading, from the source that works; if none is known to, from each in turn. Raises OwnStallError."""
        if state.reader is not None:
            return await self._read_from(state, state.url, state.reader)
        reasons = []
        for url, source in self._sources(state):
            reader = state.readers.setdefault(url + source.path, LoadReader(source, state.found.facts))
            reading = await self._read_from(state, url, reader)
            if reading.load is not None:
                state.reader, state.url = reader, url
                return reading
            reasons.append(reading.reason)
        return Reading(None, "; ".join(dict.fromkeys(reasons)) or "this runtime tells nothing of its load")

    async def _read_from(self, state: _Read, url: str, reader: LoadReader) -> Reading:
        own = url.startswith(state.endpoint.url + "/")
        try:
            answer = await self._client.fetch(
                url,
                timeout_s=self.settings.timeout_s,
                authorization=self.authorization if own else None,
                tls_name=state.endpoint.tls_name if own else None,
                guarded=state.endpoint.guarded,
            )
        except OwnStallError:
            raise
        except FetchError as error:
            return Reading(None, f"{reader.source.path}: {error}")
        return reader.read(answer)

    def _sources(self, state: _Read) -> Iterator[tuple[str, LoadSource]]:
        endpoint, spec = state.endpoint, state.found.spec
        loads = spec.loads
        if endpoint.metrics_url is not None:
            # An engine that is not known may still export the metrics of one that is.
            known = loads or tuple(load for other in RUNTIMES.values() for load in other.loads)
            for source in known:
                if source.metrics:
                    yield endpoint.metrics_url, source
        for source in loads:
            if source.port is not None and endpoint.metrics_url is None:
                host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
                yield f"http://{host}:{source.port}{source.path}", source
            if endpoint.metrics_url is None or not source.metrics:
                yield endpoint.url + source.path, source

    def _report(self, state: _Read, reading: Reading) -> None:
        """Hand on a reading, or a miss; how many misses make the last reading worthless is decided by the balancer."""
        replica_id, runtime = state.endpoint.id, state.found.spec.name
        counts = self._board.counts
        counts.readings += 1
        for name in reading.dropped:
            counts.dropped[runtime, name] += 1
        for metric in reading.missing:
            counts.missing[runtime, metric] += 1
        if reading.load is not None:
            state.misses = 0
            self._conform(state, self._conformance(state, reading, reading.load))
            self._sink.observe_load(replica_id, reading.load)
            return
        counts.failed[runtime] += 1
        state.misses += 1
        self._sink.observe_load_failed(replica_id, reading.reason)
        if state.misses < self.settings.scrape_stale:
            return
        # The source may have been turned off or renamed by a restart: all are tried again.
        state.reader = None
        self._conform(state, Conformance(runtime, missing=reading.missing, note=reading.reason))

    def _conformance(self, state: _Read, reading: Reading, load: RuntimeLoad) -> Conformance:
        present = frozenset(name for name in _LOAD_FIELDS if getattr(load, name) is not None)
        path = state.reader.source.path if state.reader is not None else None
        # A quotient needs two readings; what was there once is not gone because one reading lacks it.
        before = state.conformance
        if before is not None and before.load_path == path and before.missing == reading.missing:
            present |= before.present
        return Conformance(state.found.spec.name, path, present, load.inferred, reading.missing)

    def _conform(self, state: _Read, conformance: Conformance) -> None:
        before = state.conformance
        if conformance == before:
            return
        state.conformance = conformance
        replica_id = state.endpoint.id
        self._board.conform(replica_id, conformance)
        if conformance.load_path is None:
            if before is None or before.load_path is not None:
                _LOG.warning("replica %s: its load is inferred from our own requests, %s", replica_id, conformance.note)
        elif conformance.missing and (before is None or before.missing != conformance.missing):
            _LOG.warning(
                "replica %s: signal missing, no %s on %s (renamed in this version, or turned off?)",
                replica_id,
                ", ".join(conformance.missing),
                conformance.load_path,
            )
