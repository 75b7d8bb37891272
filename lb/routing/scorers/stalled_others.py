"""What the request's prompt costs those already there: their tokens stand still while it is computed."""

from __future__ import annotations

from lb.replica import Replica
from lb.routing.form import Form
from lb.settings import RoutingSettings


class StalledOthers:
    """b*u*D + c*(n^2-m^2)*D for the D requests in decode. Prompts ahead are served first and are not delayed.

    It is what makes the choice a social one: long prompts go where few streams would stand still.
    """

    live = True
    own = False

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        pace = replica.pace
        decoding = replica.in_flight + replica.foreign - replica.waiting
        slots = replica.slots
        if slots is not None and decoding > slots:
            decoding = float(slots)
        return (0.0, pace.token_s * decoding, pace.token2_s * decoding, 0.0, 0.0, 0.0)
