"""Requests that wait for room, late binding: none is promised to a replica before one has room for it."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import ceil, inf

from lb.admission.release_rate import ReleaseRate
from lb.effects import Ticket
from lb.errors import Reason
from lb.settings import AdmissionSettings

PRIORITY_BOUND = 100
"""Priorities beyond +-100 share a class, so that clients cannot make thousands of classes to walk through."""
MAX_RATES = 1024
"""Pools whose release rate is remembered while nothing of them waits."""
_SLACK = 64
"""Dead heap entries that are tolerated before a heap is rebuilt."""


class _Waiting:
    """One waiting ticket."""

    __slots__ = ("alive", "body_bytes", "deadline_at", "line", "sequence", "since", "ticket")

    def __init__(
        self, ticket: Ticket, line: _Line, sequence: int, deadline_at: float, body_bytes: int, since: float
    ) -> None:
        self.ticket = ticket
        self.line = line
        self.sequence = sequence
        self.deadline_at = deadline_at
        self.body_bytes = body_bytes
        self.since = since
        self.alive = True

    def __lt__(self, other: _Waiting) -> bool:
        return self.deadline_at < other.deadline_at


class _Line:
    """Waiting tickets of one pool in one priority class, first come first."""

    __slots__ = ("entries", "pool_key", "priority")

    def __init__(self, priority: int, pool_key: str) -> None:
        self.priority = priority
        self.pool_key = pool_key
        self.entries: OrderedDict[int, _Waiting] = OrderedDict()

    def head(self) -> _Waiting:
        return next(iter(self.entries.values()))


class _Class:
    """One priority class: its lines, and a heap of (sequence of its first ticket, pool) to find the longest waiting."""

    __slots__ = ("heads", "lines", "size")

    def __init__(self) -> None:
        self.lines: dict[str, _Line] = {}
        self.heads: list[tuple[int, str]] = []
        self.size = 0


class WaitQueue:
    """Bounded, by priority class (lowest number first), first-come within a class, with one line per pool.

    A pool without room is asked about once per class and pop, however many requests wait for it. Push, pop and remove
    are O(log n); lines that became empty are gone.
    """

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._classes: dict[int, _Class] = {}
        self._order: list[int] = []
        """Priorities in use, sorted."""
        self._entries: dict[Ticket, _Waiting] = {}
        self._deadlines: list[_Waiting] = []
        self._sequence = 0
        self._bytes = 0
        self._depth: dict[str, int] = {}
        self._rates: OrderedDict[str, ReleaseRate] = OrderedDict()

    def reconfigure(self, settings: AdmissionSettings) -> None:
        """New bounds; what waits stays, even beyond them."""
        self._settings = settings

    def push(
        self, ticket: Ticket, pool_key: str, priority: int, deadline_at: float, body_bytes: int, now: float
    ) -> Reason | None:
        """Let `ticket` wait until `deadline_at` (inf: for ever) for a pool's room. None: it waits; else why not."""
        settings = self._settings
        if (
            not settings.queue
            or len(self._entries) >= settings.queue_requests
            or self._bytes + body_bytes > settings.queue_body_bytes
        ):
            return Reason.QUEUE_FULL
        assert ticket not in self._entries, "a ticket waits once"
        priority = max(-PRIORITY_BOUND, min(PRIORITY_BOUND, priority))
        line = self._line(priority, pool_key)
        self._sequence += 1
        entry = _Waiting(ticket, line, self._sequence, deadline_at, body_bytes, now)
        group = self._classes[priority]
        if not line.entries:
            heappush(group.heads, (entry.sequence, pool_key))
        line.entries[entry.sequence] = entry
        group.size += 1
        self._entries[ticket] = entry
        self._bytes += body_bytes
        self._depth[pool_key] = self._depth.get(pool_key, 0) + 1
        if pool_key not in self._rates:
            if len(self._rates) >= MAX_RATES:
                self._rates.popitem(last=False)
            self._rates[pool_key] = ReleaseRate(now)
        if deadline_at != inf:
            heappush(self._deadlines, entry)
        return None

    def pop(self, now: float, fits: Callable[[str], bool]) -> Ticket | None:
        """Take the next ticket whose pool has room; None if no pool of a waiting ticket has.

        Tickets past their deadline are passed over; `expired` hands them out.
        """
        for priority in tuple(self._order):
            entry = self._first_fitting(self._classes[priority], now, fits)
            if entry is not None:
                return self._release(entry, now)
        return None

    def pop_from(self, pool_key: str, now: float) -> Ticket | None:
        """Take the next ticket of one pool, by priority and then age: what has room is already known."""
        for priority in tuple(self._order):
            line = self._classes[priority].lines.get(pool_key)
            entry = _live_head(line, now) if line is not None else None
            if entry is not None:
                return self._release(entry, now)
        return None

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out (its client left). False: it does not wait here."""
        entry = self._entries.get(ticket)
        if entry is None:
            return False
        self._drop(entry)
        return True

    def expired(self, now: float) -> list[Ticket]:
        """Take out all tickets whose deadline has come, the earliest deadline first."""
        tickets: list[Ticket] = []
        heap = self._deadlines
        while heap and (not heap[0].alive or heap[0].deadline_at <= now):
            entry = heappop(heap)
            if entry.alive:
                tickets.append(entry.ticket)
                self._drop(entry)
        return tickets

    def next_deadline(self) -> float | None:
        heap = self._deadlines
        while heap and not heap[0].alive:
            heappop(heap)
        return heap[0].deadline_at if heap else None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._entries

    @property
    def bytes(self) -> int:
        """Body bytes of all waiting tickets."""
        return self._bytes

    def depth_by_priority(self) -> dict[int, int]:
        return {priority: self._classes[priority].size for priority in self._order}

    def depth(self, pool_key: str) -> int:
        return self._depth.get(pool_key, 0)

    def pools(self) -> tuple[str, ...]:
        """Pools that something waits for."""
        return tuple(self._depth)

    def oldest_age_s(self, pool_key: str, now: float) -> float:
        """How long the longest waiting ticket of a pool has waited; 0.0 when none waits."""
        since = [
            line.head().since
            for group in self._classes.values()
            if (line := group.lines.get(pool_key)) is not None and line.entries
        ]
        return max(0.0, now - min(since)) if since else 0.0

    def releases_per_s(self, pool_key: str, now: float) -> float:
        """Measured rate at which this pool's tickets find room; 0.0 before the first."""
        rate = self._rates.get(pool_key)
        return rate.per_s(now) if rate is not None else 0.0

    def retry_after_s(self, pool_key: str, now: float) -> float:
        """When those who wait now will have been served at the measured rate: whole seconds, 1 to `queue_wait_s`.

        With tickets waiting and none released in memory it is the upper bound: nothing moves.
        """
        most = max(1.0, float(ceil(self._settings.queue_wait_s)))
        depth = self._depth.get(pool_key, 0)
        if depth == 0:
            return 1.0
        rate = self.releases_per_s(pool_key, now)
        return most if rate * most <= depth else max(1.0, float(ceil(depth / rate)))

    def _line(self, priority: int, pool_key: str) -> _Line:
        group = self._classes.get(priority)
        if group is None:
            group = self._classes[priority] = _Class()
            insort(self._order, priority)
        line = group.lines.get(pool_key)
        if line is None:
            line = group.lines[pool_key] = _Line(priority, pool_key)
        return line

    def _first_fitting(self, group: _Class, now: float, fits: Callable[[str], bool]) -> _Waiting | None:
        passed: list[tuple[int, str]] = []
        found: _Waiting | None = None
        while group.heads:
            sequence, pool_key = group.heads[0]
            line = group.lines.get(pool_key)
            if line is None or not line.entries or line.head().sequence != sequence:
                heappop(group.heads)
                continue
            if fits(pool_key):
                found = _live_head(line, now)
                if found is not None:
                    break
            passed.append(heappop(group.heads))
        for head in passed:
            heappush(group.heads, head)
        return found

    def _release(self, entry: _Waiting, now: float) -> Ticket:
        self._drop(entry)
        rate = self._rates.get(entry.line.pool_key)
        if rate is not None:
            rate.add(now)
        return entry.ticket

    def _drop(self, entry: _Waiting) -> None:
        line = entry.line
        group = self._classes[line.priority]
        was_head = line.head() is entry
        del line.entries[entry.sequence]
        del self._entries[entry.ticket]
        entry.alive = False
        self._bytes -= entry.body_bytes
        group.size -= 1
        depth = self._depth[line.pool_key] - 1
        if depth:
            self._depth[line.pool_key] = depth
        else:
            del self._depth[line.pool_key]
        if not line.entries:
            del group.lines[line.pool_key]
        elif was_head:
            heappush(group.heads, (line.head().sequence, line.pool_key))
        if not group.lines:
            del self._classes[line.priority]
            self._order.remove(line.priority)
        elif len(group.heads) > 2 * len(group.lines) + _SLACK:
            group.heads = [(one.head().sequence, key) for key, one in group.lines.items()]
            heapify(group.heads)
        if len(self._deadlines) > 2 * len(self._entries) + _SLACK:
            self._deadlines = [waiting for waiting in self._deadlines if waiting.alive]
            heapify(self._deadlines)


def _live_head(line: _Line, now: float) -> _Waiting | None:
    """First ticket of a line whose deadline has not come."""
    for entry in line.entries.values():
        if entry.deadline_at > now:
            return entry
    return None
