"""The beginning of the prompt that a replica has computed before need not be computed again."""

from __future__ import annotations

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.routing.form import Shape


def cached_tokens(replica: Replica, entry: Entry) -> float:
    """Prompt tokens that `replica` probably holds; at least one is always computed, it gives the first token."""
    index = replica.index
    for mask, blocks in entry.depths:
        if mask >> index & 1:
            return min(blocks * entry.block_tokens * replica.cache_trust, max(0.0, entry.prompt - 1.0))
    return 0.0


class PrefixAffinity:
    """-(m*b + m^2*c) with the weighted b and c of the replica: exactly the time that m cached tokens save, for this
    request and for those it would stall. A longer queue than that and the prompt goes elsewhere."""

    own = False

    def concerns(self, entry: Entry, info: RequestInfo) -> bool:
        return bool(entry.depths)

    def seconds(self, replica: Replica, shape: Shape, entry: Entry, info: RequestInfo) -> float:
        cached = cached_tokens(replica, entry)
        return -cached * (shape[1] + cached * shape[2])
