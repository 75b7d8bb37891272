from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from autoscaler.policy.pools import PoolSettings
from tests.autoscaler.loops.rig import Rig

Make = Callable[..., Awaitable[Rig]]


def pool(name: str = "chat", **fields: Any) -> PoolSettings:
    """A pool that acts, gives back after a minute, and says nothing about capacity."""
    known: dict[str, Any] = {
        "mode": "own", "models": ("m",), "min_replicas": 1, "max_replicas": 6, "backlog_s": 60.0,
        "capacity": {"per_replica": 1.0}, "start": {"p50_s": 30.0, "p95_s": 60.0, "give_up_s": 300.0},
        "down": {"hold_s": 60.0, "payback_s": 15.0},
        # The rig puts a fake in its place.
        "actuator": {"type": "exec", "command": ["/bin/false"]},
    }  # fmt: skip
    return PoolSettings.model_validate({"name": name, **known, **fields})


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    rigs: list[Rig] = []

    async def build(*pools: PoolSettings, ready: int = 0, interval_s: float = 15.0, **options: Any) -> Rig:
        rig = Rig(*(pools or (pool(),)), interval_s=interval_s, **options)
        rigs.append(rig)
        return await rig.start(ready)

    yield build
    for rig in rigs:
        await rig.store.close()
