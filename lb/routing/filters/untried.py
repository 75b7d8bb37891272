"""A second try goes to another replica."""

from __future__ import annotations

from collections.abc import Sequence

from lb.effects import Ticket
from lb.replica import Replica


class Untried:
    """Leaves out those that the request was sent to before."""

    always = False

    def keep(self, candidates: Sequence[Replica], ticket: Ticket) -> list[Replica]:
        tried = ticket.excluded
        return [replica for replica in candidates if replica.endpoint.id not in tried]
