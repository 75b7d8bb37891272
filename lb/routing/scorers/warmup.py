"""A replica that has just joined or returned is slower than it will be: caches, compilation, clocks."""

from __future__ import annotations

from lb.replica import Replica
from lb.routing.form import NO_FORM, Form
from lb.settings import RoutingSettings


class Warmup:
    """Own prefill and decode times * (1/r - 1), where r grows to 1 over the learned warm-up."""

    live = False
    own = True

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        ramp = replica.ramp
        if ramp is None:
            return NO_FORM
        slower = 1.0 / ramp.ratio(now) - 1.0
        pace = replica.pace
        return (
            pace.prefill_s * slower,
            pace.token_s * slower,
            pace.token2_s * slower,
            (pace.step_s + pace.running_s) * slower,
            0.0,
            0.0,
        )
