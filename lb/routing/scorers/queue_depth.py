"""Requests of others that wait inside the runtime, where our own ledger cannot see them."""

from __future__ import annotations

from lb.replica import Replica
from lb.routing.form import NO_FORM, Form
from lb.settings import RoutingSettings

PROMPT_TOKENS = 512.0
"""Prompt of a foreign request while we have sent none to compare with."""


class QueueDepth:
    """foreign waiting prompt tokens * b. Our own waiting requests count in `predicted_work`, never twice."""

    live = False
    own = True

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        load = replica.load
        if load is None or replica.foreign <= 0.0:
            return NO_FORM
        if load.waiting_tokens is not None:
            tokens = max(0.0, load.waiting_tokens - replica.waiting_tokens)
        elif load.waiting is not None:
            mean = replica.prompt_tokens_total / replica.routed_total if replica.routed_total else PROMPT_TOKENS
            tokens = min(load.waiting, replica.foreign) * mean
        else:
            return NO_FORM
        return (tokens * replica.pace.token_s, 0.0, 0.0, 0.0, 0.0, 0.0)
