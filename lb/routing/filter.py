"""Which replicas may take a request at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lb.effects import Ticket
from lb.replica import Replica


class Filter(Protocol):
    """One reason to leave replicas out. Model and lifecycle are no filters: pools are kept by both."""

    always: bool
    """False: only requests that have been tried somewhere are asked about."""

    def keep(self, candidates: Sequence[Replica], ticket: Ticket) -> list[Replica]:
        """Those that may take it, in order."""
