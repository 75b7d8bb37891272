"""KV memory that runs full: running requests are preempted and computed again."""

from __future__ import annotations

from lb.replica import Replica
from lb.routing.form import NO_FORM, Form
from lb.settings import RoutingSettings

SCALE_S = 0.15
"""Of the k/(1-k) barrier, the value that the SGLang gateway's least-load policy uses."""
FROM_RATIO = 0.75
"""Below, memory use says nothing about the time to answer, which the ledger already predicts."""


class KvPressure:
    """0.15 s * (k - 0.75) / (1 - k) for a KV use k above 0.75: 0.2 s at 90 %, 3.6 s at 99 %."""

    live = False
    own = False

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        load = replica.load
        if load is None or load.kv_usage_ratio is None or load.kv_usage_ratio <= FROM_RATIO:
            return NO_FORM
        used = min(0.999, load.kv_usage_ratio)
        return (SCALE_S * (used - FROM_RATIO) / (1.0 - used), 0.0, 0.0, 0.0, 0.0, 0.0)
