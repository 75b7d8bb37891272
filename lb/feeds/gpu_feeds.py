"""GPU readings of this node and of its peers, as one thing to start and stop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from lb.endpoint import parse_url
from lb.feeds.gpu_readings import GpuReadings, GpuSink, NodeView
from lb.feeds.guard import guarded
from lb.feeds.http import ProbeClient
from lb.feeds.node_scraper import NodeScraper, Peer, PeerState
from lb.feeds.places import REFRESH_S, Places
from nvml.drivers import make_driver
from nvml.owners import OwnerResolver
from nvml.sample import NodeSnapshot
from nvml.sampler import Sampler
from nvml.settings import NvmlSettings

_STOP_S = 1.0
"""A call into the driver that takes longer is left behind; its thread does not keep the process from ending."""


class GpuFeeds:
    """Owns the sampler's thread, the peers' tasks, and the ties between replicas and cards."""

    def __init__(
        self,
        sink: GpuSink,
        settings: NvmlSettings,
        *,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
        places: Places | None = None,
    ) -> None:
        """`clock`: monotonic seconds, any thread. Must be made on the loop that the sink lives on."""
        self._sink = sink
        self._rng = rng
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        driver = make_driver(settings)
        self._sampler = None
        if driver is not None:
            owners = OwnerResolver(settings.owners_refresh_s)
            self._sampler = Sampler(driver, settings, owners, clock=clock, on_snapshot=self._sampled)
        self._client = ProbeClient()
        self._places = places or Places()
        self._readings = GpuReadings(
            sink, self._places, nodes=self._nodes, now=clock, declare_ports=self._declare_ports
        )  # fmt: skip
        self._scraper = NodeScraper(self._client, rng=rng, now=clock, changed=self._readings.wake)
        self._new_hosts = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        sink.on_endpoints(lambda _: self._new_hosts.set())

    async def start(self) -> None:
        """Begin to read."""
        await self._client.open()
        if self._sampler is not None:
            self._sampler.start()
        for name, run in (("gpu readings", self._readings.run), ("gpu places", self._look_up)):
            self._tasks.append(asyncio.create_task(guarded(name, run, self._rng), name=name))

    async def stop(self) -> None:
        """Read no more. A thread that hangs in the driver is left behind."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._scraper.stop()
        await self._client.close()
        if self._sampler is not None:
            await asyncio.to_thread(self._sampler.stop, _STOP_S)

    def reconfigure(self, settings: NvmlSettings) -> None:
        """Other intervals and thresholds; what is remembered of the cards stays."""
        if self._sampler is not None:
            self._sampler.reconfigure(settings)

    def follow(self, peers: Iterable[Peer]) -> None:
        """Read these peers from now on."""
        self._scraper.follow(peers)
        self._new_hosts.set()

    def snapshot(self) -> NodeSnapshot:
        """This node's cards as they may be believed now. Never blocks."""
        now = self._clock()
        if self._sampler is None:
            return NodeSnapshot(taken_at=now, detail="GPUs are not read: the policy has gpus.driver: off")
        return self._sampler.latest(now)

    @property
    def peers(self) -> tuple[PeerState, ...]:
        """What each peer said last."""
        return self._scraper.states

    def report(self) -> list[dict[str, object]]:
        """How each peer is doing, for the admin API."""
        return [_report(state, self._clock()) for state in self._scraper.states]

    def _sampled(self, node: NodeSnapshot) -> None:
        """In the sampler's thread."""
        with suppress(RuntimeError):  # a call that hung came back after the loop was closed
            self._loop.call_soon_threadsafe(self._readings.wake)

    def _declare_ports(self, ports: Iterable[int]) -> None:
        if self._sampler is not None:
            self._sampler.declare_ports(ports)

    def _nodes(self, now: float) -> Sequence[NodeView]:
        nodes = [] if self._sampler is None else [NodeView(self._sampler.latest(now))]
        for state in self._scraper.states:
            believed = state.believed(now)
            if believed is not None:
                nodes.append(NodeView(believed, _hosts(state)))
        return nodes

    async def _look_up(self) -> None:
        """Keep the addresses of all hosts known."""
        while True:
            self._new_hosts.clear()
            hosts = {endpoint.host for endpoint in self._sink.endpoints()}
            hosts.update(host for state in self._scraper.states for host in _hosts(state))
            if await self._places.learn(hosts):
                self._readings.wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._new_hosts.wait()


def _hosts(state: PeerState) -> tuple[str, ...]:
    peer = state.peer.settings
    return (parse_url(peer.url)[0], *peer.hosts)


def _report(state: PeerState, now: float) -> dict[str, object]:
    node = state.believed(now)
    return {
        "url": state.peer.settings.url,
        "age_s": None if state.read_at is None else round(now - state.read_at, 3),
        "error": state.error,
        "gpus": {gpu.uuid: str(gpu.state) for gpu in node.gpus} if node is not None else None,
        "in_flight": {share.url: share.in_flight for share in state.shares if share.in_flight},
    }
