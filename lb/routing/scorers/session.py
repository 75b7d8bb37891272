"""A session stays where it was while that is not much slower."""

from __future__ import annotations

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.routing.form import Shape

STAY_S = 100.0
"""What leaving costs: state that we cannot see, such as a cache of images or tool results. With the default weight of
the first token a session leaves for a replica that begins to answer 6 s sooner, or when its own has no room."""


class Session:
    """-100 s for the replica that served the session last."""

    own = False

    def concerns(self, entry: Entry, info: RequestInfo) -> bool:
        return entry.session is not None

    def seconds(self, replica: Replica, shape: Shape, entry: Entry, info: RequestInfo) -> float:
        return -STAY_S if replica is entry.session else 0.0
