"""The loop in good weather: starts, drains, stops, modes, memory, and what is told."""

from __future__ import annotations

import asyncio
import logging

import pytest

from autoscaler.action import Drain, ScaleUp, Stop, Undrain
from autoscaler.decide.outlook import Outlook
from autoscaler.fleet import Phase
from autoscaler.loops.control import STATE
from autoscaler.policy.pools import ScalingSettings
from autoscaler.store import Bin
from lb.effects import Ticket
from tests.autoscaler.loops.conftest import Make, pool


async def test_an_empty_pool_gets_its_floor_and_the_balancer_hears_of_it(make: Make) -> None:
    rig = await make()
    await rig.tick()
    assert rig.actuator.names(ScaleUp) == ["chat-e1-1"]
    await rig.tick(2)
    assert rig.state("chat-e1-1") == "ready"
    assert rig.value("tidegate_pool_replicas", pool="chat", state="ready") == 1.0
    assert rig.value("tidegate_pool_actions_total", pool="chat", action="scale_up", reason="floor") == 1.0


async def test_demand_that_rises_is_followed_up_and_that_falls_down_without_a_cut(make: Make) -> None:
    rig = await make(ready=1)
    running: list[Ticket | None] = []
    for _ in range(12):
        sent = [rig.offer() for _ in range(45)]  # 3 a second, of which one replica serves 1
        await rig.tick()
        rig.finish_all(*running)
        running = [ticket for ticket in sent if ticket is not None and ticket.replica is not None]
    up = len(rig.actuator.machines)
    assert up >= 3
    await rig.tick(8)
    rig.finish_all(*running)
    await rig.tick(60)
    assert len(rig.actuator.machines) == 1
    drains, stops = rig.actuator.names(Drain), rig.actuator.names(Stop)
    assert sorted(stops) == sorted(set(drains))
    assert len(stops) == up - 1
    assert rig.aborted == []


async def test_a_replica_with_requests_drains_until_they_end(make: Make) -> None:
    rig = await make(ready=2)
    tickets = [rig.offer(), rig.offer()]
    for _ in range(8):
        await rig.tick()
    (leaving,) = rig.actuator.names(Drain)[:1]
    assert rig.state(leaving) == "draining"
    await rig.tick(30)
    assert rig.actuator.names(Stop) == [], "it still has a request"
    for ticket in tickets:
        assert ticket is not None
        rig.finish(ticket)
    assert await rig.until_gone(leaving) <= 3
    await rig.tick()
    assert rig.aborted == []
    assert leaving not in rig.gateway.balancer.replicas


async def test_the_one_with_least_to_do_leaves_first(make: Make) -> None:
    """J21."""
    rig = await make(ready=3)
    tickets = [rig.offer() for _ in range(9)]
    busy = {ticket.replica.id for ticket in tickets if ticket is not None and ticket.replica is not None}
    assert len(busy) == 3
    idle = sorted(busy)[1]
    for ticket in tickets:
        assert ticket is not None
        assert ticket.replica is not None
        if ticket.replica.id == idle:
            rig.finish(ticket)
    await rig.tick(8)
    assert rig.actuator.names(Drain)[0] == idle


async def test_a_draining_replica_is_taken_back_before_another_is_started(make: Make) -> None:
    rig = await make(pool(down={"hold_s": 0.0, "payback_s": 0.0}), ready=2)
    held = [rig.offer(), rig.offer()]
    await rig.tick(6)
    (leaving,) = rig.actuator.names(Drain)[:1]
    assert rig.state(leaving) == "draining"
    for _ in range(8):
        for _ in range(30):
            rig.offer()
        await rig.tick()
    assert rig.actuator.names(Undrain) == [leaving]
    assert rig.state(leaving) == "ready"
    assert rig.actuator.names(Stop) == []
    assert all(ticket is not None for ticket in held)


@pytest.mark.parametrize("mode", ["observe", "advise"])
async def test_modes_that_do_not_own_touch_nothing(make: Make, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    rig = await make(pool(mode=mode), ready=2)
    caplog.set_level(logging.INFO, logger="autoscaler.loops.telling")
    for _ in range(8):
        for _ in range(60):
            rig.offer()
        tick = await rig.tick()
        assert tick is not None
        assert tick.decisions[0].desired >= 2
    assert tick is not None
    assert tick.decisions[0].change > 0, "it knows what it would do"
    assert rig.actuator.asked == []
    told = [line for line in caplog.messages if f"{mode} only, nothing is done" in line]
    assert len(told) in range(1, 8), "said when it is news, and not each tick"


async def test_a_pool_that_is_only_watched_repeats_no_wish(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Balancers watch a controller's pool to count misses; what they would do concerns nobody."""
    rig = await make(pool(mode="observe", min_replicas=3), ready=1)
    await rig.tick()
    caplog.set_level(logging.INFO, logger="autoscaler.loops.telling")
    for _ in range(45):
        tick = await rig.tick()
        assert tick is not None
        assert tick.decisions[0].change > 0
    assert caplog.messages == []


@pytest.mark.parametrize(("actuator", "told"), [("dry_run", None), ("exec", 1.0)])
async def test_metrics_of_a_pool_that_another_process_scales_are_left_to_it(
    make: Make, actuator: str, told: float | None
) -> None:
    settings = {"type": "dry_run"} if actuator == "dry_run" else {"type": "exec", "command": ["/bin/false"]}
    rig = await make(pool(mode="observe", actuator=settings), ready=1)
    await rig.tick()
    assert rig.value("tidegate_pool_replicas", pool="chat", state="ready") == told
    assert rig.value("tidegate_tick_seconds_count") == (told or 0.0)
    assert rig.loop.report()[0]["pool"] == "chat", "the admin API shows it all the same"


async def test_leaving_own_gives_the_draining_back_to_the_balancer(make: Make) -> None:
    rig = await make(ready=2)
    rig.offer(), rig.offer()
    await rig.tick(8)
    (leaving,) = rig.actuator.names(Drain)[:1]
    new = ScalingSettings(pools=(pool(mode="advise"),))
    await rig.loop.reconfigure(new, rig.hands())
    assert rig.state(leaving) == "ready"
    await rig.tick(5)
    assert rig.actuator.names(Stop) == []
    assert rig.actuator.closed == 1, "the old hands were let go"


async def test_a_pool_that_is_no_more_keeps_its_replicas_and_loses_its_series(make: Make) -> None:
    rig = await make(pool("a", models=("m",)), pool("b", models=("n",)))
    rig.actuators["a"].add("a-1")
    rig.actuators["b"].add("b-1")
    await rig.tick(2)
    assert rig.value("tidegate_pool_replicas", pool="b", state="ready") is not None
    hands = rig.loop._hands
    await rig.loop.reconfigure(ScalingSettings(pools=(pool("a", models=("m",)),)), {"a": hands["a"]})
    await rig.tick(2)
    assert rig.actuators["b"].asked == []
    assert "b-1" not in rig.gateway.balancer.replicas
    assert rig.value("tidegate_pool_replicas", pool="b", state="ready") is None
    assert rig.value("tidegate_pool_replicas", pool="a", state="ready") == 1.0
    assert [one["pool"] for one in rig.loop.report()] == ["a"]


async def test_every_decision_is_recorded_with_what_led_to_it(make: Make) -> None:
    rig = await make(ready=1)
    await rig.tick(3)
    found = await rig.store.decisions("chat")
    assert [one.at for one in found] == [rig.clock.wall() - 15.0 * age for age in range(3)]
    record = found[0].record
    assert record["desired"] == 1
    assert {one["source"] for one in record["proposals"]} >= {"predictive", "saturation", "floor"}  # type: ignore[attr-defined]
    assert record["would_change"]
    shown = rig.loop.report()[0]
    assert shown["sentence"] == found[0].sentence
    assert [one["phase"] for one in shown["replicas"]] == ["ready"]  # type: ignore[attr-defined]


async def test_a_forecast_reaches_the_controller(make: Make) -> None:
    outlook = Outlook(10_000.0, (60.0, 3600.0), (0.5, 0.9), ((3.0, 3.5), (3.0, 3.5)), model="seasonal")
    rig = await make(outlooks=lambda: {"chat": outlook}, ready=1)
    rig.offer()
    await rig.tick(4)
    (newest, *_) = await rig.store.decisions("chat")
    assert newest.record["forecast"] == {"model": "seasonal", "trusted": True, "reason": ""}
    assert rig.value("tidegate_pool_forecast_trusted", pool="chat") == 1.0


async def test_who_does_not_lead_looks_and_does_nothing(make: Make) -> None:
    leads = [False]
    rig = await make(leads=lambda: leads[0])
    assert await rig.tick(3) is None
    assert rig.actuator.asked == []
    leads[0] = True
    assert await rig.tick() is not None
    assert len(rig.actuator.asked) == 1


async def test_leadership_that_ends_between_two_actions_ends_the_acting(make: Make) -> None:
    answers = iter([True, True, False, False, False])
    two = {"kinds": ({"name": "a", "max_replicas": 1}, {"name": "b"}), "min_replicas": 2}
    rig = await make(pool(**two), leads=lambda: next(answers, False))
    await rig.tick()
    assert len(rig.actuator.asked) == 1


async def test_what_was_learned_outlives_the_process(make: Make) -> None:
    rig = await make()
    await rig.tick(3)
    lead = rig.loop.controller.pool("chat").starts.leads["default"]
    assert lead.state()["totals"] == [15.0]
    await rig.loop.close()
    assert rig.actuator.closed == 1
    saved = await rig.store.load_state(STATE)
    assert saved is not None
    rig.born()
    await rig.loop.begin()
    assert rig.loop.controller.pool("chat").starts.leads["default"].state()["totals"] == [15.0]
    rig.probe()
    await rig.tick()
    assert rig.actuator.machines["chat-e1-1"].phase is Phase.READY
    assert rig.actuator.names(ScaleUp) == ["chat-e1-1"], "what runs is taken over, and nothing is started anew"


async def test_a_pool_that_may_be_empty_empties_and_the_first_request_wakes_it(make: Make) -> None:
    rig = await make(pool(min_replicas=0), ready=1)
    await rig.until_gone("old-0")
    assert not rig.loop.knocked(), "nobody waits"
    ticket = rig.offer()
    assert ticket is not None
    assert rig.loop.knocked()
    await rig.tick(after_s=0.5)
    assert rig.actuator.names(ScaleUp) == ["chat-e1-1"]
    assert not rig.loop.knocked(), "a start is under way"
    await rig.tick(3)
    assert ticket in rig.routed
    rig.finish_all()
    await rig.tick(3)
    assert len(rig.actuator.machines) == 1, "demand within the last minute keeps it"


async def test_what_waits_for_a_first_replica_ends_the_rest_early(make: Make) -> None:
    rig = await make(pool(min_replicas=0), interval_s=3600.0)
    running = asyncio.create_task(rig.loop.run())
    try:
        async with asyncio.timeout(20.0):
            while not await rig.store.decisions("chat"):  # noqa: ASYNC110 - the loop has no event for a tick
                await asyncio.sleep(0.01)
            assert rig.actuator.asked == [], "the first tick had nothing to do"
            rig.offer()
            while not rig.actuator.asked:
                rig.now += 1.0
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
    assert rig.now < 10_000.0 + 3600.0
    assert isinstance(rig.actuator.asked[0], ScaleUp)


async def test_predictors_learn_again_from_the_minutes_in_the_store(make: Make) -> None:
    rig = await make(ready=1)
    end = int(rig.clock.wall() // 60) * 60
    rig.store.record_bins(Bin("m", end - 60 * age, 120.0, 1.0, 1.0) for age in range(1, 2001))
    await rig.loop.close()
    rig.born()
    await rig.loop.begin()
    await rig.tick(5)
    found = await rig.store.decisions("chat")
    assert found[0].record["band"] is not None
    assert rig.loop.controller.pool("chat").predictive._daily[0][1] == pytest.approx(2.0), (
        "the highest demand of the last day"
    )
