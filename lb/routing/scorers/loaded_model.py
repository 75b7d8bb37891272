"""A runtime that swaps models answers sooner where the model is in memory."""

from __future__ import annotations

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.routing.form import Shape

LOAD_S = 10.0
"""Loading an 8B model from a local disk takes 5 to 20 s."""


class LoadedModel:
    """10 s where the runtime names its loaded models and the request's is not among them."""

    own = True

    def concerns(self, entry: Entry, info: RequestInfo) -> bool:
        return entry.pool.roster.swaps

    def seconds(self, replica: Replica, shape: Shape, entry: Entry, info: RequestInfo) -> float:
        load = replica.load
        if load is None or load.loaded_models is None or info.model in load.loaded_models:
            return 0.0
        return LOAD_S
