"""Fixtures of tests with real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lb.loops.processes import Balancer, Replica

FAST = ("--speed", "20", "--flush", "1ms")
"""Model time runs faster than the wall, so that an answer of 20 tokens takes some 15 ms."""

MakeReplicas = Callable[..., Awaitable[list[Replica]]]
MakeBalancer = Callable[..., Awaitable[Balancer]]


@pytest.fixture
async def make_replicas(tmp_path: Path) -> AsyncIterator[MakeReplicas]:
    made: list[Replica] = []

    async def make(count: int, *options: str) -> list[Replica]:
        fresh = [Replica(tmp_path / f"replica-{len(made) + n}.log", *(options or FAST)) for n in range(count)]
        made.extend(fresh)
        for replica in fresh:
            await replica.start()
        return fresh

    yield make
    for replica in made:
        await replica.kill()


@pytest.fixture
async def make_balancer(tmp_path: Path) -> AsyncIterator[MakeBalancer]:
    """Starts a balancer and waits until it has found its replicas; `policy`: its sections, from a file."""
    made: list[Balancer] = []

    async def make(replicas: list[Replica], *options: str, policy: dict[str, Any] | None = None) -> Balancer:
        log = tmp_path / "balancer.log"
        if policy is not None:
            balancer = Balancer.with_policy(log, tmp_path / "policy.yaml", replicas, **policy)
        else:
            balancer = Balancer.of(log, replicas, *options)
        made.append(balancer)
        await balancer.start()
        for replica in replicas:
            await balancer.until(replica.url, state="ready")
        return balancer

    yield make
    for balancer in made:
        await balancer.close()
