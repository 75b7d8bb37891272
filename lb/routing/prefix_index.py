"""Which replica has seen which beginning of a prompt: a bounded guess at the prefix caches of the runtimes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

NO_MATCH: list[tuple[int, int]] = []
_GENERATIONS: Final = 8
"""Order of use is kept to this share of a replica's blocks: a prompt that comes again within it is noted by one look-up
instead of three a block, each of which misses the processor's caches."""


class _Held:
    """What one replica holds: block hash -> the generation in which it was used last, in the order of that use."""

    __slots__ = ("blocks", "generation", "used")

    def __init__(self) -> None:
        self.blocks: OrderedDict[int, int] = OrderedDict()
        self.generation = 0
        self.used = 0
        """Blocks that were put in order in this generation."""


class PrefixIndex:
    """Block hash -> set of replicas as a bit mask, with one least-recently-used list per replica.

    Hashes are chained, so the holders of a block are among the holders of the block before it. Looking a prompt up is
    O(log of its blocks) for each set of replicas that hold equally much of it, noting it at most O(its blocks),
    eviction O(1) a block. All replicas together remember at most `capacity_blocks`.
    """

    __slots__ = ("_capacity", "_holders", "_limits", "_own", "_share")

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity = capacity_blocks
        self._holders: dict[int, int] = {}
        self._own: dict[int, _Held] = {}
        self._limits: dict[int, int] = {}
        """Own bounds of replicas whose cache size is known."""
        self._share = capacity_blocks

    def __len__(self) -> int:
        return sum(len(own.blocks) for own in self._own.values())

    def held(self, index: int) -> int:
        """Blocks that a replica is taken to have."""
        own = self._own.get(index)
        return 0 if own is None else len(own.blocks)

    def resize(self, capacity_blocks: int, replicas: int) -> None:
        """Share the capacity among so many replicas; what is beyond a share is forgotten, oldest first."""
        self._capacity = capacity_blocks
        self._share = max(1, capacity_blocks // max(1, replicas))
        for index in self._own:
            self._trim(index)

    def bound(self, index: int, blocks: int | None) -> None:
        """A replica's cache holds no more than `blocks`; None: not known."""
        if blocks is None:
            self._limits.pop(index, None)
        else:
            self._limits[index] = max(1, blocks)
        self._trim(index)

    def match(self, prefix: tuple[int, ...]) -> list[tuple[int, int]]:
        """Holders as (mask of replicas, leading blocks they have), the longest match first; each mask holds the one
        before it, so the first whose mask has a replica's bit is that replica's match."""
        holders = self._holders
        mask = holders.get(prefix[0], 0) if prefix else 0
        if not mask:
            return NO_MATCH
        found: list[tuple[int, int]] = []
        end = len(prefix)
        low = 0
        while True:
            # Between `low`, a block that all of `mask` have, and `high`, one that not all have. The last block comes
            # first: most often a prompt was seen in whole, and else a bisection finds where it parts.
            high, probe = end, end - 1
            while high - low > 1:
                if holders.get(prefix[probe], 0) & mask == mask:
                    low = probe
                else:
                    high = probe
                probe = (low + high) // 2
            found.append((mask, high))
            if high == end:
                break
            mask &= holders.get(prefix[high], 0)
            if not mask:
                break
            low = high
        found.reverse()
        return found

    def note(self, index: int, prefix: tuple[int, ...]) -> None:
        """Replica `index` computes this prompt. Later blocks age first, as runtimes evict a prompt's tail first."""
        own = self._own.get(index)
        if own is None:
            own = self._own[index] = _Held()
        limit = min(self._share, self._limits.get(index, self._share))
        bit = 1 << index
        holders, blocks, generation = self._holders, own.blocks, own.generation
        settled = generation if len(prefix) <= limit // 2 else -2  # what is in order already might be pushed out by it
        for block in reversed(prefix[:limit] if len(prefix) > limit else prefix):
            seen = blocks.get(block, -1)
            if seen == settled:
                break  # and so were all the blocks before it
            blocks[block] = generation
            if seen < 0:
                holders[block] = holders.get(block, 0) | bit
            else:
                blocks.move_to_end(block)
            own.used += 1
        if own.used > limit // _GENERATIONS:
            own.generation += 1
            own.used = 0
        if len(blocks) > limit:
            self._trim(index)

    def forget(self, index: int) -> None:
        """The replica's cache is gone (restart, removal)."""
        own = self._own.pop(index, None)
        if own is not None:
            for block in own.blocks:
                self._clear(block, index)
        self._limits.pop(index, None)

    def _trim(self, index: int) -> None:
        own = self._own.get(index)
        if own is None:
            return
        blocks = own.blocks
        limit = min(self._share, self._limits.get(index, self._share))
        while len(blocks) > limit:
            self._clear(blocks.popitem(last=False)[0], index)

    def _clear(self, block: int, index: int) -> None:
        left = self._holders[block] & ~(1 << index)
        if left:
            self._holders[block] = left
        else:
            del self._holders[block]
