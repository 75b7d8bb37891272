"""Demand by the minute, from the balancer's counters to the store and back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from autoscaler.loops.recording import EVERY_S, Recorder
from autoscaler.store import Bin, Store
from forecaster.history import Quantity
from lb.clock import Clock
from lb.views import DemandView
from tests.autoscaler.loops.test_pure import model

WALL = 1_700_000_040.0
"""The begin of a minute."""


class World:
    """A counter and a clock."""

    def __init__(self, store: Store) -> None:
        self.now = 500.0
        self.total = 1000
        self.store = store
        self.recorder = self.born()

    def born(self) -> Recorder:
        return Recorder(self.demand, self.store, Clock(lambda: self.now, lambda: WALL + self.now - 500.0))

    def demand(self, at: float) -> DemandView:
        assert at == self.now
        return DemandView(at, {"m": model(offered_total=self.total, prompt_tokens_total=10.0 * self.total)})

    def live(self, seconds: float, per_s: int) -> None:
        for _ in range(int(seconds / EVERY_S)):
            self.now += EVERY_S
            self.total += int(per_s * EVERY_S)
            self.recorder.look()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store = Store(None, wall=lambda: WALL)
    await store.start()
    yield World(store)
    await store.close()


async def test_each_minute_is_stored_once_it_is_over(world: World) -> None:
    world.recorder.look()
    world.live(120.0, per_s=2)
    world.live(60.0, per_s=4)
    found = await world.store.bins("m", 0)
    assert [(one.start_s, one.requests, one.prompt_tokens) for one in found] == [
        (WALL, 120.0, 1200.0), (WALL + 60, 120.0, 1200.0), (WALL + 120, 240.0, 2400.0),
    ]  # fmt: skip


async def test_a_restart_leaves_a_gap_and_keeps_what_was(world: World) -> None:
    world.recorder.look()
    world.live(180.0, per_s=2)
    world.now += 600.0
    world.total = 7
    world.recorder = world.born()
    assert await world.recorder.recall() == 3
    world.recorder.look()
    world.live(120.0, per_s=1)
    starts = [one.start_s - WALL for one in await world.store.bins("m", 0)]
    assert starts == [0, 60, 120, 780, 840]
    series = world.recorder.history.series("m", Quantity.REQUESTS, now_s=WALL + 900)
    assert [one for one in series.values if one == one] == [120.0, 120.0, 120.0, 60.0, 60.0]
    assert len(series) == 15


async def test_a_long_past_is_taken_back_a_day_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the event loop is held for milliseconds, and little garbage is alive at any moment."""
    world.store.record_bins([Bin("m", int(WALL) - 60 * age, 5.0, 1.0, 1.0) for age in range(1, 4_321)])
    sizes = []
    bins = world.store.bins

    async def watched(model: str, since_s: float, until_s: float | None = None) -> list[Bin]:
        found = await bins(model, since_s, until_s)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(world.store, "bins", watched)
    assert await world.recorder.recall() == 4_320
    assert sum(sizes) == 4_320, "each minute is read once"
    assert max(sizes) <= 1_440
    series = world.recorder.history.series("m", Quantity.REQUESTS, now_s=WALL)
    assert (len(series), series.values.tolist()) == (4_320, [5.0] * 4_320)


async def test_what_is_filled_in_from_elsewhere_is_recalled(world: World) -> None:
    world.store.record_bins([Bin("m", int(WALL) - 60 * age, 5.0, 1.0, 1.0) for age in range(1, 11_001)], keep=True)
    assert await world.recorder.recall() == 11_000
    assert world.recorder.history.keys() == ("m",)
