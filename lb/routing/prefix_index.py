"""Which replica has seen which beginning of a prompt: a bounded guess at the prefix caches of the runtimes."""

from __future__ import annotations

from collections import OrderedDict

NO_MATCH: list[tuple[int, int]] = []


class PrefixIndex:
    """Block hash -> set of replicas as a bit mask, with one least-recently-used list per replica.

    Hashes are chained, so the holders of a block are among the holders of the block before it. Looking up and noting a
    prompt is O(its blocks), eviction O(1) a block. All replicas together remember at most `capacity_blocks`.
    """

    __slots__ = ("_capacity", "_holders", "_limits", "_own", "_share")

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity = capacity_blocks
        self._holders: dict[int, int] = {}
        self._own: dict[int, OrderedDict[int, None]] = {}
        self._limits: dict[int, int] = {}
        """Own bounds of replicas whose cache size is known."""
        self._share = capacity_blocks

    def __len__(self) -> int:
        return sum(len(own) for own in self._own.values())

    def held(self, index: int) -> int:
        """Blocks that a replica is taken to have."""
        return len(self._own.get(index, ()))

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
        depth = 1
        for block in prefix[1:]:
            here = holders.get(block, 0) & mask
            if here != mask:
                found.append((mask, depth))
                if not here:
                    break
                mask = here
            depth += 1
        else:
            found.append((mask, depth))
        found.reverse()
        return found

    def note(self, index: int, prefix: tuple[int, ...]) -> None:
        """Replica `index` computes this prompt. Later blocks age first, as runtimes evict a prompt's tail first."""
        own = self._own.get(index)
        if own is None:
            own = self._own[index] = OrderedDict()
        limit = min(self._share, self._limits.get(index, self._share))
        bit = 1 << index
        holders = self._holders
        for block in reversed(prefix[:limit] if len(prefix) > limit else prefix):
            if block in own:
                own.move_to_end(block)
            else:
                own[block] = None
                holders[block] = holders.get(block, 0) | bit
        if len(own) > limit:
            self._trim(index)

    def forget(self, index: int) -> None:
        """The replica's cache is gone (restart, removal)."""
        for block in self._own.pop(index, ()):
            self._clear(block, index)
        self._limits.pop(index, None)

    def _trim(self, index: int) -> None:
        own = self._own.get(index)
        limit = min(self._share, self._limits.get(index, self._share))
        while own and len(own) > limit:
            self._clear(own.popitem(last=False)[0], index)

    def _clear(self, block: int, index: int) -> None:
        left = self._holders[block] & ~(1 << index)
        if left:
            self._holders[block] = left
        else:
            del self._holders[block]
