"""Tasks that crash come back; tasks whose replica is gone do not."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from lb.endpoint import Endpoint
from lb.feeds import guard
from lb.feeds.guard import ReplicaTasks, first_delay_s, guarded


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_FIRST_PAUSE_S", 0.01)


async def test_a_crash_is_logged_and_followed_by_a_new_start(caplog: pytest.LogCaptureFixture) -> None:
    starts = 0
    third = asyncio.Event()

    async def crash() -> None:
        nonlocal starts
        starts += 1
        if starts == 3:
            third.set()
            await asyncio.sleep(3600)
        raise RuntimeError("boom")

    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(guarded("probe:a", crash, random.Random(1)))
        async with asyncio.timeout(5):
            await third.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert caplog.text.count("probe:a crashed") == 2
    assert "RuntimeError: boom" in caplog.text


async def test_an_end_that_nobody_asked_for_is_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    second = asyncio.Event()
    starts = 0

    async def end() -> None:
        nonlocal starts
        starts += 1
        if starts == 2:
            second.set()

    task = asyncio.create_task(guarded("read:b", end, random.Random(1)))
    async with asyncio.timeout(5):
        await second.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "read:b ended by itself" in caplog.text


async def test_one_named_task_for_each_endpoint() -> None:
    lives: list[str] = []
    ended: list[str] = []

    async def live(endpoint: Endpoint, replicas: int) -> None:
        lives.append(endpoint.id)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(endpoint.id)

    def named(*ids: str, **known: object) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(id=i, host="127.0.0.1", port=1, **known) for i in ids)  # type: ignore[arg-type]

    tasks = ReplicaTasks("probe", live, random.Random(1))
    tasks.follow(named("a", "b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert {"probe:a", "probe:b"} <= {task.get_name() for task in asyncio.all_tasks()}
    tasks.follow(named("a", "b"))
    tasks.follow(named("b", "c"))
    await asyncio.sleep(0.01)
    assert lives == ["a", "b", "c"]
    assert ended == ["a"]
    tasks.follow(named("b", "c", zone="z"))  # changed: it starts anew
    await asyncio.sleep(0.01)
    assert lives == ["a", "b", "c", "b", "c"]
    await tasks.stop()
    assert sorted(ended) == ["a", "b", "b", "c", "c"]
    tasks.follow(named("d"))
    assert len(tasks) == 0


def test_first_delays_are_spread_with_the_number_of_replicas() -> None:
    rng = random.Random(3)
    assert max(first_delay_s(1.0, 1, rng) for _ in range(1000)) <= 0.005
    many = [first_delay_s(1.0, 200, rng) for _ in range(2000)]
    assert 0.9 < max(many) <= 1.0
    assert all(150 < sum(1 for d in many if i / 10 <= d < (i + 1) / 10) < 250 for i in range(10))
    assert max(first_delay_s(0.5, 10_000, rng) for _ in range(1000)) <= 0.5
