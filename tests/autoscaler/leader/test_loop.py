"""The shell around the election, on a store in memory and with short times."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

from autoscaler.leader import LeaseRecord
from autoscaler.loops.leader import LeaderLoop, LeaseConflictError, LeaseUnreachableError
from autoscaler.policy.lease import LeaseSettings

SHORT = LeaseSettings(duration_s=1.0, fence_s=0.4, retry_s=0.05)


class MemoryStore:
    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self.calls = 0
        self.reachable = True

    async def read(self) -> LeaseRecord | None:
        self._count()
        return self.record

    async def write(self, record: LeaseRecord) -> LeaseRecord:
        self._count()
        if record.version != (self.record.version if self.record is not None else None):
            raise LeaseConflictError("version")
        self.record = replace(record, version=str(self.calls))
        return self.record

    def _count(self) -> None:
        self.calls += 1
        if not self.reachable:
            raise LeaseUnreachableError("the store is away")


def loop_of(store: MemoryStore, identity: str, told: list[bool] | None = None) -> LeaderLoop:
    async def changed(leads: bool) -> None:
        if told is not None:
            told.append(leads)

    return LeaderLoop(SHORT, identity, store, clock=time.monotonic, rng=random.Random(1), changed=changed)


async def until(condition: object, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_one_leads_and_the_other_follows_when_it_gives_back() -> None:
    store = MemoryStore()
    first, second = loop_of(store, "a"), loop_of(store, "b")
    task = asyncio.create_task(first.run())
    await until(first.leads)
    other = asyncio.create_task(second.run())
    await asyncio.sleep(0.2)
    assert not second.leads()
    task.cancel()
    await first.give_back()
    await until(second.leads, 0.5)
    assert not first.leads()
    assert second.term == 1
    other.cancel()


async def test_a_holder_that_loses_the_store_stops_at_its_fence_says_so_and_comes_back() -> None:
    store, told = MemoryStore(), list[bool]()
    loop = loop_of(store, "a", told)
    task = asyncio.create_task(loop.run())
    await until(loop.leads)
    store.reachable = False
    lost_at = time.monotonic()
    await until(lambda: not loop.leads())
    assert time.monotonic() - lost_at <= SHORT.fence_s + 0.05
    await until(lambda: told == [True, False])
    calls = store.calls
    await asyncio.sleep(0.5)
    assert store.calls - calls <= 12, "no hot loop while the store is away"
    store.reachable = True
    await until(loop.leads)
    task.cancel()


async def test_a_store_that_never_answers_does_not_keep_the_holder_acting() -> None:
    store = MemoryStore()
    loop = loop_of(store, "a")
    task = asyncio.create_task(loop.run())
    await until(loop.leads)

    async def hang(record: LeaseRecord) -> LeaseRecord:
        await asyncio.sleep(3600)
        return record

    store.write = hang  # type: ignore[method-assign]
    await until(lambda: not loop.leads(), 1.0)
    task.cancel()
