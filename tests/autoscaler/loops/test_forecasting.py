"""When what is sent to the process that forecasts, and what becomes of its answers. Time is a value."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path

import numpy as np
import pytest

from autoscaler.forecast_wire import Answer, Ask
from autoscaler.loops.forecast_process import ForecastProcessError
from autoscaler.loops.forecasting import SETTLE_S, Plan
from autoscaler.policy.forecast import ForecastingSettings
from autoscaler.policy.pools import PoolSettings
from forecaster.event_settings import EventFields
from forecaster.history import Counters
from forecaster.trust import Change
from tests.autoscaler.loops.forecasts import WALL, World, good, made

QUIET = EventFields.model_validate({"at": "2026-12-01 UTC", "for": "1h", "demand": "x2"})


@pytest.fixture
def world() -> World:
    return World()


async def test_history_goes_first_and_then_only_what_is_new(world: World) -> None:
    world.known(60)
    loop = world.loop()
    assert loop.outlooks()["a"].reason == "no demand was seen yet"
    await loop.look()
    await loop.look()
    ask, limit_s = world.asked[0]
    assert (len(world.asked), ask.begin, limit_s) == (1, True, ForecastingSettings().begin_s)
    known = ask.series.values[np.isfinite(ask.series.values)]
    assert (ask.series.end_s, list(known)) == (WALL, [50.0] * 12)
    outlook = loop.outlooks()["a"]
    assert outlook.values == ((2.0, 4.0), (2.0, 4.0)), "requests a second"
    assert (outlook.made_at, outlook.horizons_s) == (5000.0 - SETTLE_S, (150.0, 3450.0))
    assert (outlook.trusted, outlook.reason, outlook.model) == (True, "it was right", "stack")
    await world.later(loop)
    ask, limit_s = world.asked[1]
    assert (ask.begin, list(ask.series.values), limit_s) == (False, [50.0], ForecastingSettings().time_s)
    assert ask.series.end_s == WALL + 300


async def test_a_bin_is_sent_once_its_last_reading_is_in(world: World) -> None:
    world.known(60)
    loop = world.loop()
    await loop.look()
    world.now += 300 - SETTLE_S
    world.known(5)
    await loop.look()
    assert (world.wall, len(world.asked)) == (WALL + 300, 1)
    assert loop._pause_s() == SETTLE_S
    world.now += SETTLE_S
    await loop.look()
    assert len(world.asked) == 2


async def test_a_pool_is_the_sum_of_its_models_in_its_unit(world: World) -> None:
    world.known(60, "big", value=10.0)
    world.known(30, "small", value=1.0)
    world.known(60, "other", value=5.0)
    pools = (
        PoolSettings.model_validate({"name": "a", "models": ("big", "small"), "capacity": {"unit": "output_tokens"}}),
        PoolSettings(name="rest"),
    )
    await world.loop(*pools).look()
    by_pool = {ask.pool: list(ask.series.values[-12:]) for ask, _ in world.asked}
    assert by_pool == {"a": [350.0] * 6 + [385.0] * 6, "rest": [25.0] * 12}
    assert {ask.pools for ask, _ in world.asked} == {("a", "rest")}


async def test_lost_telemetry_is_sent_as_lost(world: World) -> None:
    world.known(60)
    loop = world.loop()
    await loop.look()
    await world.later(loop, 600.0, demand=False)
    assert [isfinite(value) for value in world.asked[1][0].series.values] == [False, False]


async def test_without_news_the_last_forecast_is_trusted_until_it_is_stale(world: World) -> None:
    world.known(60)
    loop = world.loop()
    await loop.look()
    world.answer = lambda ask: ForecastProcessError("ended with SIGKILL")
    await world.later(loop)
    assert loop.outlooks()["a"].trusted
    world.now = 5000.0 - SETTLE_S + 900.0
    assert loop.outlooks()["a"].trusted
    world.now += 1.0
    outlook = loop.outlooks()["a"]
    assert not outlook.trusted
    assert outlook.reason == "the newest data are 901 s old: the process that forecasts ended with SIGKILL"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(error="the forecaster failed: ZeroDivisionError"), "the forecaster failed: ZeroDivisionError"),
        (Answer(), "it answered without a forecast"),
        (Answer(made(WALL, values=((nan, nan),) * 2)), "the forecast holds what is no demand"),
        (Answer(made(WALL, values=((-1.0, 1.0),) * 2)), "the forecast holds what is no demand"),
        (Answer(made(WALL, values=((1.0, float("inf")),) * 2)), "the forecast holds what is no demand"),
    ],
)
async def test_what_is_no_forecast_is_not_passed_on_and_begins_anew_after_a_rest(
    world: World, answer: Answer, why: str
) -> None:
    world.known(60)
    world.answer = lambda ask: answer
    loop = world.loop()
    await loop.look()
    outlook = loop.outlooks()["a"]
    assert (outlook.valid(), outlook.trusted, outlook.reason) == (False, False, why)
    world.answer = good
    await world.later(loop, 59.0, demand=False)
    assert len(world.asked) == 1
    await world.later(loop, 1.0, demand=False)
    assert [ask.begin for ask, _ in world.asked] == [True, True]
    assert loop.outlooks()["a"].valid()
    assert (len(world.lives), loop.restarts) == (1, 0), "the process can go on"
    assert loop.states()[0].failures == 1


async def test_a_process_that_fails_is_ended_and_its_culprit_rests_ever_longer(world: World) -> None:
    world.known(60)
    world.answer = lambda ask: ForecastProcessError("did not answer") if ask.pool == "bad" else good(ask)
    loop = world.loop(PoolSettings(name="bad"), PoolSettings(name="good", models=("m",)))
    world.known(60, "other")
    for _ in range(300):
        await world.later(loop, 60.0)
        world.known(1, "other")
        assert all(life.closed for life in world.lives[:-1])
        if world.now > 5500.0:
            assert loop.outlooks()["good"].trusted, "one poisoned pool leaves the others their forecasts"
    bad = [ask.now_s for ask, _ in world.asked if ask.pool == "bad"]
    pauses = [late - early for early, late in pairwise(bad)]
    assert pauses[:5] == [60.0, 120.0, 240.0, 480.0, 960.0]
    assert max(pauses) == 3600.0
    assert loop.restarts == len(bad)


async def test_a_process_that_cannot_be_started_rests(world: World) -> None:
    world.known(60)
    world.fail_start = True
    loop = world.loop(PoolSettings(name="a"), PoolSettings(name="b", models=("n",)))
    world.known(60, "n")
    await loop.look()
    assert len(world.lives) == 1
    reasons = {name: one.reason for name, one in loop.outlooks().items()}
    assert reasons == {
        "a": "the process that forecasts cannot be started: no",
        "b": "the process that forecasts rests, as it had to be ended",
    }
    world.fail_start = False
    await world.later(loop, 60.0, demand=False)
    assert all(one.valid() for one in loop.outlooks().values())


async def test_a_clock_that_is_set_back_begins_history_anew(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.known(240)
    loop = world.loop()
    await loop.look()
    before = loop.outlooks()["a"]
    world.offset -= 7200.0
    assert loop.outlooks()["a"] == before, "instants are monotonic"
    for _ in range(3):
        world.now += 20.0
        world.history.observe("m", Counters(world.now, 0.0, 0.0), wall_s=world.wall, mono_s=world.now)
    await loop.look()
    assert [(ask.begin, ask.series.end_s) for ask, _ in world.asked] == [(True, WALL), (True, WALL - 7200)]
    assert "the clock was set" in caplog.text


async def test_a_small_step_back_waits_for_time_to_come_again(world: World) -> None:
    world.known(60)
    loop = world.loop()
    await loop.look()
    world.offset -= 100.0
    await loop.look()
    assert len(world.asked) == 1
    await world.later(loop, 400.0)
    assert [ask.begin for ask, _ in world.asked] == [True, False]


async def test_a_clock_that_leaps_years_ahead_begins_anew_and_sends_no_years(world: World) -> None:
    world.known(60)
    loop = world.loop()
    await loop.look()
    world.offset += 10 * 365 * 86_400.0
    await loop.look()
    assert len(world.asked) == 1, "nothing is known of the new time yet"
    world.known(30)
    await world.later(loop)
    ask, _ = world.asked[1]
    assert ask.begin
    assert len(ask.series) == 45 * 288


async def test_gate_changes_are_told_with_their_reason(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.known(60)
    loop = world.loop()
    world.answer = lambda ask: Answer(made(ask.series.end_s), (Change(True, "it cost less"),))
    await loop.look()
    assert "pool a: its forecast may act from now on: it cost less" in caplog.text
    world.answer = lambda ask: Answer(made(ask.series.end_s, trusted=False), (Change(False, "it cost more"),))
    await world.later(loop)
    assert "pool a: its forecast may not act from now on: it cost more" in caplog.text


async def test_problems_are_said_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.known(60)
    world.problems = ("team.ics: No such file or directory",)
    loop = world.loop()
    await loop.look()
    await world.later(loop)
    assert caplog.text.count("team.ics") == 1
    world.problems = ()
    await world.later(loop)
    world.problems = ("team.ics: No such file or directory",)
    await world.later(loop)
    assert caplog.text.count("team.ics") == 2


async def test_a_reload_with_other_events_begins_anew_and_keeps_forecasts_meanwhile(world: World) -> None:
    world.known(60)
    loop = world.loop()
    await loop.look()
    loop.reconfigure(Plan(events=(QUIET,), base=Path("/etc"), pools=(PoolSettings(name="a"),)))
    assert loop.outlooks()["a"].trusted
    await loop.look()
    assert [ask.begin for ask, _ in world.asked] == [True, True]
    first, second = world.lives
    assert (first.closed, second.setup.events, second.setup.base) == (True, (QUIET,), "/etc")


async def test_a_reload_of_pools_keeps_the_process_and_what_stays_the_same(world: World) -> None:
    world.known(60)
    world.known(60, "n")
    loop = world.loop(PoolSettings(name="a"), PoolSettings(name="b", models=("n",)))
    await loop.look()
    changed = PoolSettings.model_validate({"name": "b", "models": ("n",), "capacity": {"unit": "prompt_tokens"}})
    loop.reconfigure(Plan(pools=(PoolSettings(name="a", max_replicas=3), changed)))
    assert not loop.outlooks()["b"].valid(), "it was in another unit"
    await loop.look()
    assert [(ask.pool, ask.begin) for ask, _ in world.asked] == [("a", True), ("b", True), ("b", True)]
    assert len(world.lives) == 1
    loop.reconfigure(Plan(pools=()))
    assert dict(loop.outlooks()) == {}
    await loop.look()
    assert world.lives[0].closed


async def test_what_is_turned_off_is_not_computed(world: World) -> None:
    world.known(60)
    off = PoolSettings.model_validate({"name": "off", "predictive": {"enabled": False}})
    loop = world.loop(off)
    await loop.look()
    assert (world.asked, dict(loop.outlooks())) == ([], {})
    loop = world.loop()
    await loop.look()
    loop.reconfigure(Plan(settings=ForecastingSettings(enabled=False), pools=(PoolSettings(name="a"),)))
    await loop.look()
    assert (dict(loop.outlooks()), world.lives[-1].closed) == ({}, True)


async def test_an_answer_to_a_policy_of_before_is_not_taken(world: World) -> None:
    world.known(60)
    loop = world.loop()

    def reloaded(ask: Ask) -> Answer:
        loop.reconfigure(Plan(events=(QUIET,), pools=(PoolSettings(name="a"),)))
        return Answer(made(ask.series.end_s))

    world.answer = reloaded
    await loop.look()
    assert not loop.outlooks()["a"].valid()
    world.answer = good
    await loop.look()
    assert loop.outlooks()["a"].valid()
    assert [ask.begin for ask, _ in world.asked] == [True, True]


async def test_a_reload_breaks_off_what_is_pointless_and_the_end_ends_the_process(world: World) -> None:
    world.known(60)
    asked = asyncio.Event()

    def answer(ask: Ask) -> Answer | Exception:
        asked.set()
        return good(ask)

    world.answer = answer
    world.hang = asyncio.Event()
    loop = world.loop()
    task = asyncio.create_task(loop.run())
    async with asyncio.timeout(5):
        await asked.wait()
        assert loop.outlooks()["a"].reason == "the history is being gone through"
        asked.clear()
        loop.reconfigure(Plan(events=(QUIET,), pools=(PoolSettings(name="a"),)))
        await asked.wait()
    first, second = world.lives
    assert (first.closed, second.closed, second.setup.events) == (True, False, (QUIET,))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all(life.closed for life in world.lives)
