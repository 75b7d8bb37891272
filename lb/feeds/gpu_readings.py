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
        before, everything = self._told, self._tell_all
        self._told, self._tell_all = {}, False
        for endpoint in endpoints:
            reading = self._read(endpoint, nodes, now)
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

    def _read(self, endpoint: Endpoint, nodes: Sequence[NodeView], now: float) -> GpuReading | None:
        found: dict[str, GpuSnapshot] = {}
        where = ""
        for node in nodes:
            # A UUID names a card wherever it is; a port only on its own machine.
            port = endpoint.port if not endpoint.gpu_uuids and self._is_at(endpoint.host, node) else None
            for card in cards_of(node.gpus, port=port, uuids=endpoint.gpu_uuids):
                if card.uuid not in found and node.hosts:
                    where = f" of {node.hosts[0]}"
                found.setdefault(card.uuid, card)
        return reading_of(found.values(), now, self._speeds, where)

    def _is_at(self, host: str, node: NodeView) -> bool:
        if not node.hosts:
            return self._places.is_own(host)
        if host in node.hosts:
            return True
        addresses = self._places.addresses(host)
        return any(not addresses.isdisjoint(self._places.addresses(other)) for other in node.hosts)
