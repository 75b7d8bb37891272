"""What was learned long ago may no longer be true: a replica that nobody asks looks better with time, until asked."""

from __future__ import annotations

from math import exp

from lb.replica import Replica
from lb.routing.form import NO_FORM, Form
from lb.settings import RoutingSettings

FADE_S = 300.0
"""A throttled or disturbed replica is back to normal within minutes. One that is really 3 times slower is asked once in
6 minutes then, which costs nothing."""
FRESH_S = 10.0
"""Lessons this young are simply true."""
MOST_RATIO = 0.9
"""Something must be left of the cost, or all replicas are equal after a quiet night."""


class Curiosity:
    """-(own prefill and decode times) * (1 - exp(-age/300 s)), age: since the replica last taught us its speed.

    Without it a replica that was slow once gets nothing while others are idle, and so can never show that it is not.
    """

    live = False
    own = True

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        age = now - replica.taught_at
        if age < FRESH_S:
            return NO_FORM
        better = -min(MOST_RATIO, 1.0 - exp(-age / FADE_S))
        pace = replica.pace
        return (
            pace.prefill_s * better,
            pace.token_s * better,
            pace.token2_s * better,
            (pace.step_s + pace.running_s) * better,
            0.0,
            0.0,
        )
