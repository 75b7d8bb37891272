"""Blocks of prompts whose KV entries a replica still holds, least recently used first out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class PrefixCache:
    """Which prompt blocks are computed: `held` by running requests, or `idle` until their memory is wanted.

    A block's id stands for the whole prefix up to its end, as in the hash chains of vLLM and in the block ids of the
    Mooncake traces: equal ids mean equal prefixes.
    """

    __slots__ = ("_held", "_idle")

    def __init__(self) -> None:
        self._held: dict[Hashable, int] = {}
        self._idle: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def idle_blocks(self) -> int:
        return len(self._idle)

    def copy(self) -> PrefixCache:
        twin = PrefixCache()
        twin._held = self._held.copy()
        twin._idle = self._idle.copy()
        return twin

    def match(self, blocks: Sequence[Hashable]) -> int:
        """Number of leading blocks that need no prefill."""
        held, idle = self._held, self._idle
        for count, block in enumerate(blocks):
            if block not in held and block not in idle:
                return count
        return len(blocks)

    def hold(self, blocks: Sequence[Hashable]) -> None:
        """A running request uses these computed blocks; they cannot be evicted until it releases them."""
        held, idle = self._held, self._idle
        for block in blocks:
            idle.pop(block, None)
            held[block] = held.get(block, 0) + 1

    def release(self, blocks: Sequence[Hashable]) -> None:
        """The request is gone. Its last blocks become idle first, so that they are evicted before the shared head."""
        held, idle = self._held, self._idle
        for block in reversed(blocks):
            left = held[block] - 1
            if left:
                held[block] = left
            else:
                del held[block]
                idle[block] = None

    def shrink(self, most_idle_blocks: int) -> None:
        """Evict idle blocks, the least recently used first, until at most this many are left."""
        idle = self._idle
        while len(idle) > most_idle_blocks:
            idle.popitem(last=False)
