"""Reads what other nodes say of themselves: their GPUs, and what they have in flight. One task per peer.

A peer that does not answer changes nothing at once: what it said last grows old, and is then no longer believed, except
that a card that was bad stays bad.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lb.feeds.guard import first_delay_s, guarded
from lb.feeds.http import FetchError, OwnStallError, ProbeClient
from lb.settings import PeerSettings
from lb.wire import Share, ShareError, read_shares
from nvml.errors import WireError
from nvml.health import as_of
from nvml.sample import NodeSnapshot
from nvml.wire import MAX_BYTES, decode

_LOG = logging.getLogger(__name__)
PATH = "/v1/node"
_TIMEOUT_S = 2.0
"""A peer answers in milliseconds; one that takes longer is of no use for the next decision."""
_WHY = {
    401: "its admin API wants a token; set `token` of this peer",
    403: "its admin API refuses us",
    404: f"it has no {PATH}; is it a Tidegate's admin address?",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer as the policy has it, with its secret looked up."""

    settings: PeerSettings
    authorization: str | None = field(default=None, repr=False)
    """Header value, `Bearer …`."""


@dataclass(slots=True)
class PeerState:
    """What a peer said last."""

    peer: Peer
    node: NodeSnapshot | None = None
    """With times on our clock; None: it has said nothing yet."""
    shares: tuple[Share, ...] = ()
    """What it had in flight then."""
    read_at: float | None = None
    """When the request for it was sent."""
    error: str | None = None
    """Why the last reading brought nothing."""
    failures: int = 0
    """Readings that brought nothing, since it is known."""

    def believed(self, now: float) -> NodeSnapshot | None:
        """Its GPUs as they may be believed at `now`."""
        return None if self.node is None else as_of(self.node, now, self.peer.settings.stale_s)


class NodeScraper:
    """Follows the peers of a policy."""

    def __init__(
        self, client: ProbeClient, *, rng: random.Random, now: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """`now`: monotonic seconds; `changed` is called after each reading."""
        self._client = client
        self._rng = rng
        self._now = now
        self._changed = changed
        self._states: dict[str, PeerState] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def states(self) -> tuple[PeerState, ...]:
        return tuple(self._states.values())

    def follow(self, peers: Iterable[Peer]) -> None:
        """Read these from now on. One that was read before keeps what it said."""
        wanted = {peer.settings.url: peer for peer in peers}
        for url in [known for known in self._states if known not in wanted]:
            self._tasks.pop(url).cancel()
            del self._states[url]
        for url, peer in wanted.items():
            state = self._states.get(url)
            if state is None:
                state = self._states[url] = PeerState(peer)
            elif state.peer == peer:
                continue
            else:
                self._tasks.pop(url).cancel()
                state.peer = peer
            self._tasks[url] = self._start(state, len(wanted))
        self._changed()

    def _start(self, state: PeerState, peers: int) -> asyncio.Task[None]:
        name = f"peer:{state.peer.settings.url}"
        return asyncio.create_task(guarded(name, lambda: self._live(state, peers), self._rng), name=name)

    async def stop(self) -> None:
        """Cancel all and wait until they are gone."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._states.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _live(self, state: PeerState, peers: int) -> None:
        interval_s = state.peer.settings.interval_s
        await asyncio.sleep(first_delay_s(interval_s, peers, self._rng))
        while True:
            started = self._now()
            await self.read(state)
            self._changed()
            await asyncio.sleep(max(interval_s / 10, interval_s * self._rng.uniform(0.9, 1.1) - self._now() + started))

    async def read(self, state: PeerState) -> None:
        """One reading. What cannot be read leaves what was read before, which grows old."""
        url = state.peer.settings.url
        sent_at = self._now()
        try:
            node, shares = await self._fetch(state.peer, sent_at)
        except OwnStallError as error:
            _LOG.warning("peer %s: a reading is not counted, %s", url, error)
            return
        except (FetchError, WireError, ShareError) as error:
            if state.error is None:
                _LOG.warning("peer %s: its GPUs are not known: %s", url, error)
            state.error = str(error)
            state.failures += 1
            return
        if state.error is not None or state.node is None:
            _LOG.info("peer %s: reading its %d GPUs", url, len(node.gpus))
        state.node, state.shares, state.read_at, state.error = node, shares, sent_at, None

    async def _fetch(self, peer: Peer, sent_at: float) -> tuple[NodeSnapshot, tuple[Share, ...]]:
        answer = await self._client.fetch(
            peer.settings.url.rstrip("/") + PATH,
            timeout_s=_TIMEOUT_S,
            authorization=peer.authorization,
            limit_bytes=MAX_BYTES,
        )
        if answer.status != 200:
            raise FetchError(_WHY.get(answer.status, f"it answered {answer.status}"))
        if answer.truncated:
            raise FetchError(f"its answer is longer than {MAX_BYTES >> 20} MiB")
        # In a thread: thousands of processes on its cards make a message that takes tens of milliseconds to read.
        node = await asyncio.to_thread(decode, answer.body, sent_at)
        return node, read_shares(answer.body)
