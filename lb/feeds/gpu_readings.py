"""Ties replicas to GPUs, on this node and on its peers, and tells the gateway what their cards allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lb.endpoint import Endpoint
from lb.feeds.places import Places
from lb.replica import GpuReading, GpuState
from nvml.placement import cards_of, standing
from nvml.sample import SEVERITY, GpuSnapshot, NodeSnapshot
from nvml.sample import GpuState as CardState

CHECK_S = 1.0
"""Readings are looked at this often even when none has come, so that they are seen to grow old."""
_APART_S = 0.2
"""Two looks are this far apart at least: each of many peers brings a reading every second."""
_STATES: Mapping[CardState, GpuState] = {
    CardState.OK: GpuState.OK,
    CardState.DEGRADED: GpuState.DEGRADED,
    CardState.UNKNOWN: GpuState.UNKNOWN,
    CardState.DRAIN: GpuState.DRAIN,
    CardState.LOST: GpuState.LOST,
}
_KNOWN = (CardState.OK, CardState.DEGRADED)


class GpuSink(Protocol):
    """Where readings go. `lb.gateway.Gateway` is one."""

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The replicas that are wanted now."""

    def on_endpoints(self, callback: Callable[[tuple[Endpoint, ...]], None]) -> object:
        """Call back after each change of that set."""

    def observe_gpu(self, replica_id: str, reading: GpuReading | None) -> object:
        """What the GPUs under a replica say; None: it is tied to none."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One machine: its GPUs as they may be believed now, and the hosts under which its replicas are listed."""

    gpus: NodeSnapshot
    hosts: tuple[str, ...] = ()
    """Empty: this machine."""


def reading_of(
    cards: Collection[GpuSnapshot], now: float, speeds: Mapping[str, float], where: str = ""
) -> GpuReading | None:
    """What a replica's cards allow; None without cards.

    `speeds`: the last known speed of each card, by UUID. One that is not read now keeps it: a throttled card is not at
    full speed because nobody looks. `where`: the node, as it follows the card in the reason.
    """
    if not cards:
        return None
    view = standing(cards, now)
    state = _STATES[view.state]
    speed = min(speeds.get(card.uuid, 1.0) for card in cards)
    # Degraded for another reason than its clock: "not known" has the scorer assume the usual slowness.
    told = None if speed >= 1.0 and state is not GpuState.OK else round(speed, 2)
    headroom = view.headroom_ratio if state in (GpuState.OK, GpuState.DEGRADED) else None
    worst = max(cards, key=lambda card: SEVERITY[card.state])
    reason = f"GPU {worst.index}{where}: {worst.reasons[0].detail}" if worst.reasons else ""
    return GpuReading(state, None if headroom is None else round(headroom, 3), told, reason)


class GpuReadings:
    """Looks at all nodes after each reading and once a second, and tells the gateway what has changed."""

    def __init__(
        self,
        sink: GpuSink,
        places: Places,
        *,
        nodes: Callable[[float], Sequence[NodeView]],
        now: Callable[[], float],
        declare_ports: Callable[[Iterable[int]], None],
    ) -> None:
        """`nodes(now)`: this machine first, then its peers; `now`: monotonic seconds; `declare_ports` is told the ports
        of the replicas on this machine."""
        self._sink = sink
        self._places = places
        self._nodes = nodes
        self._now = now
        self._declare_ports = declare_ports
        self._changed = asyncio.Event()
        self._told: dict[str, GpuReading] = {}
        self._tell_all = True
        self._speeds: dict[str, float] = {}
        self._ports: frozenset[int] | None = None
        sink.on_endpoints(self._follow)

    def wake(self) -> None:
        """There is something new to look at."""
        self._changed.set()

    def _follow(self, endpoints: tuple[Endpoint, ...]) -> None:
        # A replica that kept its id may be another one now, of which the balancer knows nothing.
        self._tell_all = True
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            self.look()
            await asyncio.sleep(_APART_S)
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def look(self) -> None:
        """Judge every replica's cards as of now."""
        now = self._now()
        endpoints = self._sink.endpoints()
        self._declare(endpoints)
        nodes = self._nodes(now)
        self._remember(nodes)
        index = _Index(nodes, self._places)
        before, everything = self._told, self._tell_all
        self._told, self._tell_all = {}, False
        for endpoint in endpoints:
            reading = self._read(endpoint, index, now)
            if reading is not None:
                self._told[endpoint.id] = reading
            if everything or reading != before.get(endpoint.id):
                self._sink.observe_gpu(endpoint.id, reading)

    def _declare(self, endpoints: Sequence[Endpoint]) -> None:
        ports = frozenset(endpoint.port for endpoint in endpoints if self._places.is_own(endpoint.host))
        if ports != self._ports:
            self._ports = ports
            self._declare_ports(ports)

    def _remember(self, nodes: Sequence[NodeView]) -> None:
        cards = {card.uuid: card for node in reversed(nodes) for card in node.gpus.gpus}
        self._speeds = {
            uuid: card.speed_ratio if card.state in _KNOWN else self._speeds.get(uuid, 1.0)
            for uuid, card in cards.items()
        }

    def _read(self, endpoint: Endpoint, index: _Index, now: float) -> GpuReading | None:
        # A UUID names a card wherever it is; a port only on its own machine.
        port = None if endpoint.gpu_uuids else endpoint.port
        found: dict[str, GpuSnapshot] = {}
        where = ""
        for node in index.of(endpoint):
            for card in cards_of(node.gpus, port=port, uuids=endpoint.gpu_uuids):
                if card.uuid not in found and node.hosts:
                    where = f" of {node.hosts[0]}"
                found.setdefault(card.uuid, card)
        return reading_of(found.values(), now, self._speeds, where)


class _Index:
    """Nodes by what leads to them, made once for a look at many replicas."""

    def __init__(self, nodes: Sequence[NodeView], places: Places) -> None:
        self._places = places
        self._own = tuple(node for node in nodes if not node.hosts)
        self._by_place: dict[str, dict[int, NodeView]] = {}
        self._by_uuid: dict[str, dict[int, NodeView]] = {}
        for number, node in enumerate(nodes):
            for host in node.hosts:
                for place in (host, *places.addresses(host)):
                    self._by_place.setdefault(place, {})[number] = node
            for card in node.gpus.gpus:
                for uuid in (card.uuid, *(instance.uuid for instance in card.mig)):
                    self._by_uuid.setdefault(uuid, {})[number] = node

    def of(self, endpoint: Endpoint) -> Iterable[NodeView]:
        """Nodes that may have cards of this replica, this machine first."""
        if endpoint.gpu_uuids:
            return _united(self._by_uuid, endpoint.gpu_uuids)
        nodes = _united(self._by_place, (endpoint.host, *self._places.addresses(endpoint.host)))
        return (*self._own, *nodes) if self._places.is_own(endpoint.host) else nodes


def _united(index: Mapping[str, Mapping[int, NodeView]], keys: Iterable[str]) -> list[NodeView]:
    found = {number: node for key in keys for number, node in index.get(key, {}).items()}
    return [found[number] for number in sorted(found)]
