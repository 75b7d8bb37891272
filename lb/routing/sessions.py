"""Which replica a session was last sent to: bounded, and forgotten when it falls silent."""

from __future__ import annotations

from collections import OrderedDict

from lb.replica import Replica

MAX_SESSIONS = 100_000
"""About 20 MB; session keys come from clients."""


class Sessions:
    """Session hash -> (replica, last use)."""

    __slots__ = ("_known", "ttl_s")

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self._known: OrderedDict[int, tuple[Replica, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, session: int, now: float) -> Replica | None:
        """The session's replica, if it can still take work."""
        known = self._known.get(session)
        if known is None:
            return None
        replica, at = known
        if now - at > self.ttl_s or not replica.selectable:
            del self._known[session]
            return None
        return replica

    def note(self, session: int, replica: Replica, now: float) -> None:
        self._known[session] = (replica, now)
        self._known.move_to_end(session)
        if len(self._known) > MAX_SESSIONS:
            self._known.popitem(last=False)

    def expire(self, now: float) -> None:
        """Forget silent sessions; they are in order of use."""
        known = self._known
        while known:
            session, (_, at) = next(iter(known.items()))
            if now - at <= self.ttl_s:
                return
            del known[session]
