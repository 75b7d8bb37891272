"""A replica without room gets nothing: the request waits here, where any replica that has room first can take it."""

from __future__ import annotations

from collections.abc import Sequence

from lb.effects import Ticket
from lb.replica import Replica


class Room:
    """in flight < limit (slots + a short queue - foreign requests), and KV tokens not all spoken for."""

    always = True

    def keep(self, candidates: Sequence[Replica], ticket: Ticket) -> list[Replica]:
        return [
            replica
            for replica in candidates
            if replica.in_flight < replica.limit and (replica.kv_left > 0.0 or not replica.in_flight)
        ]
