"""When this replica would have answered: prompts ahead, a free slot, its own prompt, its own tokens."""

from __future__ import annotations

from lb.replica import Replica
from lb.routing.form import Form
from lb.settings import RoutingSettings

UNKNOWN_TOKENS = 256.0
"""What a request of others still has to generate, while we have none beside it to compare with: the answers' prior."""


class PredictedWork:
    """prefill a + b*u + c*(n^2-m^2), then a decode step per output token, slowed by those it shares steps with.

    The wait for prompts ahead is the one part that changes by the clock: the picker adds `max(0, free_at - now)`, and
    while a stream's first byte is overdue the time by which it is, as what is late by t is on average late by t more.
    """

    live = True
    own = True

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        pace = replica.pace
        own = replica.in_flight
        mean_context = replica.kv_tokens / own if own else 0.0
        return (
            pace.prefill_s + _slot_wait_s(replica),
            pace.token_s,
            pace.token2_s,
            pace.step_s + pace.running_s,
            pace.running_s + pace.context_s * mean_context,
            0.0,
        )


def _slot_wait_s(replica: Replica) -> float:
    """Time until a slot is free: the requests beyond the slots leave at the rate at which running ones end."""
    slots = replica.full_at if replica.full_at is not None else replica.slots
    own = replica.in_flight
    if slots is None:
        return 0.0
    beyond = own + replica.foreign + len(replica.abandoned) - slots
    if beyond < 0.0:
        return 0.0
    pace = replica.pace
    step_s = pace.step_s + pace.running_s * slots + pace.context_s * replica.kv_tokens
    left = replica.output_tokens_left / own if own else UNKNOWN_TOKENS
    return (beyond + 1.0) * left * step_s / max(1.0, slots)
