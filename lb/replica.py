"""One replica as the balancer sees it: what discovery said, what it said itself, and what we sent it."""

from __future__ import annotations

from dataclasses import dataclass

from lb.endpoint import Endpoint


@dataclass(slots=True, eq=False)
class Replica:
    """Mutable state of one replica, written by the balancer alone."""

    endpoint: Endpoint
    in_flight: int = 0

    @property
    def id(self) -> str:
        return self.endpoint.id
