"""Health probes: recognise each replica when it joins, then ask it again and again whether it can serve."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field

from lb.endpoint import Endpoint
from lb.feeds.board import Board, Found
from lb.feeds.guard import ReplicaTasks, first_delay_s
from lb.feeds.http import REFUSED, FetchError, OwnStallError, ProbeClient
from lb.feeds.sink import FeedSink
from lb.runtime import Answer, ProbeResult, ProbeStatus, RuntimeSpec
from lb.runtime_reader import Listed, identify, judge, read_facts, read_models
from lb.runtimes import DETECTION_PATHS, RUNTIMES
from lb.settings import HealthSettings

_LOG = logging.getLogger(__name__)
LISTING_INTERVAL_S = 30.0
"""Models are asked for this often: adapters come and go while a server runs, a list is not asked with every probe."""
UNKNOWN_INTERVAL_S = 30.0
"""A server that was not recognised is tried again at least this often; at first more often, as it may have been
starting. One try is up to eight requests."""
PROBES_PER_S = 50.0
"""Most probes a second over all replicas: beyond `interval_s * 50` replicas each is asked less often, so that the
probes of a large fleet do not take the data plane's event loop. One costs about half a millisecond of it."""
LONGEST_INTERVAL_S = 5.0
"""However many replicas there are: a dead one that gets no requests is found within three of these."""
MODELS_PROBED = 16
"""Most models asked one by one (Triton); a server with more is ready if one of these is."""
_JITTER = 0.1


def unknown_pause_s(tries: int, interval_s: float) -> float:
    """Least time to the next try to recognise a server, after so many in vain: 1, 2, 4 ... intervals between probes."""
    return min(UNKNOWN_INTERVAL_S, interval_s * 2.0 ** min(max(0, tries - 1), 16))


@dataclass(slots=True)
class _Probed:
    """One replica between two probes."""

    endpoint: Endpoint
    spec: RuntimeSpec | None
    guessed: bool = False
    """Nothing recognised it; `spec` is the generic one."""
    tried_at: float = 0.0
    """When it was last tried to recognise it."""
    tries: int = 0
    """How often in vain since it came up."""
    up: bool = False
    """Its last probe was good."""
    listed: Listed | None = None
    listed_at: float = float("-inf")
    was_ready: bool = False
    failing: bool = False
    warned: set[str] = field(default_factory=set)


class Prober:
    """One task per replica. `start` after the sink exists, `stop` before the client is closed."""

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
        """`authorization` is the value of the header that replicas want, if they want one."""
        self.settings = settings
        self.authorization = authorization
        self._sink = sink
        self._client = client
        self._board = board
        self._rng = rng
        self._tasks = ReplicaTasks("probe", self._live, rng)

    def start(self) -> None:
        """Follow the sink's endpoints from now on."""
        self._sink.on_endpoints(self._follow)
        self._follow(self._sink.endpoints())

    def _follow(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._board.keep(frozenset(endpoint.id for endpoint in endpoints))
        self._tasks.follow(endpoints)

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _live(self, endpoint: Endpoint, replicas: int) -> None:
        loop = asyncio.get_running_loop()
        spec = None
        if endpoint.runtime != "auto":
            spec = RUNTIMES.get(endpoint.runtime)
            if spec is None:
                _LOG.warning("replica %s: no runtime is called %r; it is detected", endpoint.id, endpoint.runtime)
        probed = _Probed(endpoint, spec)
        await asyncio.sleep(first_delay_s(self.settings.interval_s, replicas, self._rng))
        while True:
            started = loop.time()
            try:
                result = await self.probe(probed)
            except OwnStallError as error:
                _LOG.warning("replica %s: a probe is not counted, %s", endpoint.id, error)
            else:
                self._board.counts.probes[result.status] += 1
                self._sink.observe_probe(endpoint.id, result)
            interval_s = max(self.settings.interval_s, min(len(self._tasks) / PROBES_PER_S, LONGEST_INTERVAL_S))
            pause_s = interval_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
            await asyncio.sleep(max(0.0, started + pause_s - loop.time()))

    async def probe(self, probed: _Probed) -> ProbeResult:
        """One probe. Raises OwnStallError where it is our own delay that was measured."""
        now = asyncio.get_running_loop().time()
        try:
            if probed.spec is None:
                await self._recognise(probed)
            elif probed.guessed and now - probed.tried_at > unknown_pause_s(probed.tries, self.settings.interval_s):
                await self._recognise_again(probed)
            assert probed.spec is not None
            result = await self._ask(probed, probed.spec)
            if result.status is ProbeStatus.READY and probed.guessed and not probed.up and probed.tried_at < now:
                # What it answered while it started told nothing of what it is.
                probed.tries = 0
                await self._recognise_again(probed)
                if not probed.guessed:
                    result = await self._ask(probed, probed.spec)
        except FetchError as error:
            if isinstance(error, OwnStallError):
                raise
            result = ProbeResult(ProbeStatus.FAILED, str(error), runtime=probed.spec.name if probed.spec else None)
            if str(error) == REFUSED:
                probed.was_ready = False
        probed.up = result.status is ProbeStatus.READY
        if result.status is ProbeStatus.FAILED:
            self._fell(probed)
        elif result.status is ProbeStatus.READY:
            returned, probed.failing, probed.was_ready = probed.failing, False, True
            await self._record(probed, anew=returned)
        return result

    def _fell(self, probed: _Probed) -> None:
        """After a failure it may come back as another server: an upgrade, a pod's address used again."""
        if not probed.failing:
            probed.failing = True
            probed.listed_at = float("-inf")
            if probed.endpoint.runtime == "auto" or probed.endpoint.runtime not in RUNTIMES:
                probed.spec = None

    async def _recognise(self, probed: _Probed) -> None:
        """Find out which engine answers. Raises FetchError if nobody does."""
        closed = False
        for number, path in enumerate(DETECTION_PATHS):
            if path == "/metrics" and closed:
                continue
            try:
                answer = await self._get(probed.endpoint, path)
            except FetchError:
                if number == 0:
                    raise
                continue
            closed = closed or answer.status in (401, 403)
            name = identify(RUNTIMES.values(), path, answer)
            if name is not None:
                self._recognised(probed, RUNTIMES[name], guessed=False)
                return
        self._recognised(probed, RUNTIMES["generic"], guessed=True)

    async def _recognise_again(self, probed: _Probed) -> None:
        """Another try at one that was not recognised. That it does not answer it says nothing of its health."""
        try:
            await self._recognise(probed)
        except OwnStallError:
            raise
        except FetchError:
            self._recognised(probed, RUNTIMES["generic"], guessed=True)

    def _recognised(self, probed: _Probed, spec: RuntimeSpec, *, guessed: bool) -> None:
        probed.tried_at = asyncio.get_running_loop().time()
        probed.tries = probed.tries + 1 if guessed else 0
        if probed.spec is not spec or probed.guessed != guessed:
            # What another engine's way of listing brought is not its list.
            probed.listed_at = float("-inf")
            _LOG.info("replica %s: %s", probed.endpoint.id, "not recognised" if guessed else spec.title)
        probed.spec, probed.guessed = spec, guessed

    async def _ask(self, probed: _Probed, spec: RuntimeSpec) -> ProbeResult:
        path = spec.readiness.path
        if "{model}" in path:
            return await self._ask_models(probed, spec)
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer = await self._get(probed.endpoint, path)
        latency_s = loop.time() - started
        status, reason = judge(spec.readiness, answer, was_ready=probed.was_ready)
        models = await self._models(probed, spec) if status is ProbeStatus.READY else None
        return ProbeResult(status, reason, models=models, runtime=spec.name, latency_s=latency_s)

    async def _ask_models(self, probed: _Probed, spec: RuntimeSpec) -> ProbeResult:
        """Ready for the models that say so one by one, which is the only true answer of such an engine."""
        await self._models(probed, spec)
        names = probed.endpoint.models or (probed.listed.models if probed.listed else ())
        loop = asyncio.get_running_loop()
        started = loop.time()
        if not names:
            answer = await self._get(probed.endpoint, spec.readiness.fallback)
            status, reason = judge(spec.readiness, answer)
            if status is ProbeStatus.READY:
                reason = reason or "its models are not known, so its own word is taken for ready"
            return ProbeResult(status, reason, runtime=spec.name, latency_s=loop.time() - started)
        ready: list[str] = []
        worst = ProbeResult(ProbeStatus.FAILED, runtime=spec.name)
        for name in names[:MODELS_PROBED]:
            answer = await self._get(probed.endpoint, spec.readiness.path.replace("{model}", name))
            status, reason = judge(spec.readiness, answer)
            if status is ProbeStatus.READY:
                ready.append(name)
            elif worst.status is ProbeStatus.FAILED:
                worst = ProbeResult(status, f"{name}: {reason}", runtime=spec.name)
        latency_s = (loop.time() - started) / min(len(names), MODELS_PROBED)
        if not ready:
            return ProbeResult(worst.status, worst.reason, runtime=spec.name, latency_s=latency_s)
        ready.extend(names[MODELS_PROBED:])
        return ProbeResult(ProbeStatus.READY, models=tuple(ready), runtime=spec.name, latency_s=latency_s)

    async def _models(self, probed: _Probed, spec: RuntimeSpec) -> tuple[str, ...] | None:
        """What it lists, if it was asked just now; None otherwise, and always where the operator has said it."""
        listing = spec.listing
        now = asyncio.get_running_loop().time()
        if listing is None or now - probed.listed_at < LISTING_INTERVAL_S:
            return None
        probed.listed_at = now
        try:
            answer = await self._get(probed.endpoint, listing.path, method=listing.method)
        except FetchError:
            return None
        listed = read_models(listing, answer)
        if listed is None:
            return None
        if listed.models:
            probed.listed = listed
        self._compare(probed, listed)
        return None if probed.endpoint.models or not listed.models else listed.models

    def _compare(self, probed: _Probed, listed: Listed) -> None:
        for name in probed.endpoint.models:
            if listed.models and name not in listed.models and name not in probed.warned:
                probed.warned.add(name)
                _LOG.warning(
                    "replica %s: it is declared to serve %r, and lists %s",
                    probed.endpoint.id,
                    name,
                    ", ".join(map(repr, listed.models[:5])),
                )

    async def _record(self, probed: _Probed, *, anew: bool) -> None:
        """Put a replica that has become ready on the board: once, and again when it came back."""
        known = self._board.found(probed.endpoint.id)
        spec = probed.spec
        if spec is None or (known is not None and known.spec is spec and not anew):
            return
        facts: dict[str, float] = {}
        for entry in spec.facts:
            try:
                facts.update(read_facts(entry, await self._get(probed.endpoint, entry.path)))
            except FetchError:
                continue
        adapters = probed.listed.adapters if probed.listed else ()
        self._board.record(probed.endpoint.id, Found(spec, facts, adapters))

    async def _get(self, endpoint: Endpoint, path: str, *, method: str = "GET") -> Answer:
        return await self._client.fetch(
            endpoint.url + path,
            method=method,
            timeout_s=self.settings.timeout_s,
            authorization=self.authorization,
            tls_name=endpoint.tls_name,
            guarded=endpoint.guarded,
        )
