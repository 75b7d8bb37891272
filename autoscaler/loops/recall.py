"""What the controller lives through again at its start: recent demand, which predictors keep nothing of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from autoscaler.controller import Controller
from autoscaler.loops.demand import models_of
from autoscaler.policy.pools import PoolSettings
from autoscaler.store import BIN_S, Bin, Store, StoreError
from lb.clock import Clock

log = logging.getLogger(__name__)

RECALL_S = 2 * 86_400.0
"""What predictors forget half of in two days need not be told more."""
_AT_ONCE = 20
"""Minutes of the past between two breaths of the event loop."""


async def recall(controller: Controller, store: Store, clock: Clock, state: Mapping[str, object]) -> None:
    """Let every pool learn from the minutes in the store. `state` is what the controller was restored from: what the
    past teaches the contest of predictors is in it already, and is not counted twice."""
    now, wall = clock.monotonic(), clock.wall()
    for pool in controller.settings.pools:
        rates = await _past(controller, store, pool, wall - RECALL_S)
        past = [(now - (wall - start_s - BIN_S), rate) for start_s, rate in sorted(rates.items())]
        for begin in range(0, len(past), _AT_ONCE):
            controller.recall(pool.name, past[begin : begin + _AT_ONCE], {}, now)
            await asyncio.sleep(0)
        part = state.get(pool.name)
        learned = part.get("predictive") if isinstance(part, Mapping) else None
        if isinstance(learned, Mapping):
            controller.pool(pool.name).predictive.restore(learned)


async def _past(controller: Controller, store: Store, pool: PoolSettings, since: float) -> dict[int, float]:
    """Demand a second of a pool by the minute's begin, as far as it was stored."""
    rates: dict[int, float] = {}
    try:
        models = models_of(controller.settings.pools, await store.models())
        for model in models[pool.name]:
            for one in await store.bins(model, since):
                rates[one.start_s] = rates.get(one.start_s, 0.0) + units_of(one, pool.capacity.unit) / BIN_S
    except StoreError as error:
        log.warning("pool %s: its past demand is not known", pool.name, extra={"reason": str(error)})
    return rates


def units_of(one: Bin, unit: str) -> float:
    """A minute's demand in a pool's unit."""
    return {"requests": one.requests, "prompt_tokens": one.prompt_tokens, "output_tokens": one.output_tokens}[unit]
