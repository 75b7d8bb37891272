"""What makes one replica cost a request more than another, in predicted seconds.

Everything is in seconds, so that terms add up, a weight of 1 is right by default, and an explanation can be read.
"""

from __future__ import annotations

from typing import Protocol

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.routing.form import Form, Shape
from lb.settings import RoutingSettings


class Scorer(Protocol):
    """A cost that depends on the replica, and on the request only through `Form`."""

    live: bool
    """True: changes with every request sent or ended; False: only with observations and time."""
    own: bool
    """True: the time of the request itself. What of it comes before its first token (the first three parts of the form)
    weighs more, see `FIRST_TOKEN`."""

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        """What `replica` costs a request, before the weight. O(1), finite."""


class Preference(Protocol):
    """A cost or saving that few pairs of request and replica have."""

    own: bool
    """True: seconds before the request's own first token."""

    def concerns(self, entry: Entry, info: RequestInfo) -> bool:
        """Whether any replica can differ for this request; asked once a request."""

    def seconds(self, replica: Replica, shape: Shape, entry: Entry, info: RequestInfo) -> float:
        """What choosing `replica`, whose weighted shape is `shape`, adds (or, below 0, saves), before the weight."""
