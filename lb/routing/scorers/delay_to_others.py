"""What the request costs those already there: its prompt stalls their tokens, its tokens lengthen their steps."""

from __future__ import annotations

from lb.replica import Replica
from lb.routing.form import Form
from lb.settings import RoutingSettings


class DelayToOthers:
    """u*b*D + c*(n^2-m^2)*D for the D requests in decode, and a step's growth for each step shared.

    Without it a router is selfish: it sends a long prompt to the batch with the least queue, however many streams
    stand still meanwhile. Prompts ahead are served first come first served and are not delayed.
    """

    live = True

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        pace = replica.pace
        decoding = replica.in_flight + replica.foreign - replica.waiting
        slots = replica.slots
        if slots is not None and decoding > slots:
            decoding = slots
        return (0.0, pace.token_s * decoding, pace.token2_s * decoding, 0.0, pace.running_s, pace.context_s)
