"""A LoRA adapter that is in GPU memory already need not be loaded."""

from __future__ import annotations

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.routing.form import Shape

LOAD_S = 0.3
"""Copying an adapter of some 100 MB from host memory and swapping one out; from disk it is seconds."""


class Adapter:
    """0.3 s where the runtime names its loaded adapters and the request's is not among them."""

    own = True

    def concerns(self, entry: Entry, info: RequestInfo) -> bool:
        return info.adapter is not None

    def seconds(self, replica: Replica, shape: Shape, entry: Entry, info: RequestInfo) -> float:
        load = replica.load
        if load is None or load.adapters is None or info.adapter in load.adapters:
            return 0.0
        return LOAD_S
