"""What the request's tokens cost those already there: each shared decode step gets a little longer."""

from __future__ import annotations

from lb.replica import Replica
from lb.routing.form import Form
from lb.settings import RoutingSettings


class SlowedOthers:
    """(step growth per request + per token of context * x) for each step shared with another request."""

    live = True
    own = False

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        pace = replica.pace
        return (0.0, 0.0, 0.0, 0.0, pace.running_s, pace.context_s)
