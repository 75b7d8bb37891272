"""The loop in bad weather: nothing that an actuator or a disk does ends it, lowers a pool, or cuts a request.

Names such as J16 are rows of the catalogue of faults.
"""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from autoscaler.action import Drain, GiveUp, ScaleUp, Stop
from autoscaler.fleet import Phase
from lb.runtime import RuntimeLoad
from tests.autoscaler.loops.conftest import Make, pool
from tests.autoscaler.loops.rig import Rig, down


async def cut(rig: Rig) -> int:
    """Requests that were ended by somebody."""
    return len(rig.aborted)


@pytest.mark.parametrize("error", [down(), RuntimeError("a bug"), ValueError("nonsense")])
async def test_a_fleet_that_cannot_be_seen_is_never_lowered(make: Make, error: Exception) -> None:
    """I08: ten minutes without a look."""
    rig = await make(ready=3)
    await rig.tick(3)
    rig.actuator.fail_observe = error
    for _ in range(40):
        tick = await rig.tick()
        assert tick is not None
        assert tick.actions == ()
    assert tick.decisions[0].binding == "fleet"
    assert sorted(rig.gateway.balancer.replicas) == ["old-0", "old-1", "old-2"], "the balancer keeps what it knows"
    assert rig.value("tidegate_pool_fault", pool="chat") == 1.0
    assert "cannot be seen" in str((await rig.store.decisions("chat"))[0].record["loop_fault"])
    rig.actuator.fail_observe = None
    tick = await rig.tick()
    assert tick is not None
    assert tick.decisions[0].ready == 3
    assert rig.value("tidegate_pool_fault", pool="chat") == 0.0


async def test_an_actuator_that_hangs_is_not_asked_again_and_holds_up_nobody(make: Make) -> None:
    rig = await make(pool("a", models=("m",)), pool("b", models=("n",)))
    stuck = rig.actuators["a"]
    stuck.hang = asyncio.Event()
    for _ in range(5):
        assert await rig.tick() is not None
    assert rig.actuators["b"].names(ScaleUp) == ["b-e1-1"]
    assert [one["phase"] for one in rig.loop.report()[1]["replicas"]] == ["ready"]  # type: ignore[attr-defined]
    stuck.hang.set()
    stuck.hang = None
    await asyncio.sleep(0.01)
    await rig.tick()
    assert stuck.names(ScaleUp) == ["a-e1-1"]


async def test_a_call_that_ignores_its_cancellation_is_waited_for_and_not_repeated(make: Make) -> None:
    rig = await make(ready=1)
    calls, free = [], asyncio.Event()
    real = rig.actuator.observe

    async def deaf() -> object:
        calls.append(1)
        for _ in range(50):
            try:
                async with asyncio.timeout(0.5):
                    await free.wait()
                break
            except (asyncio.CancelledError, TimeoutError):
                continue
        return await real()

    rig.actuator.observe = deaf  # type: ignore[assignment, method-assign]
    for _ in range(4):
        await rig.tick()
    assert len(calls) == 1
    assert "has not answered for 45 s" in rig.loop._hands["chat"].error
    free.set()
    await asyncio.sleep(0.01)
    rig.actuator.observe = real  # type: ignore[method-assign]
    await rig.tick()
    assert rig.loop._hands["chat"].error == ""


async def test_a_start_that_got_no_answer_is_asked_for_again_by_its_name(make: Make) -> None:
    """J18: what failed half-way converges."""
    rig = await make(pool(min_replicas=3))
    rig.actuator.fail_apply = down("quota exceeded")
    tick = await rig.tick()
    assert tick is not None
    assert len(tick.actions) == 1
    rig.actuator.fail_apply = None
    await rig.tick()
    assert rig.actuator.names(ScaleUp) == ["chat-e1-1", "chat-e1-2", "chat-e1-3"]
    await rig.tick(20)
    assert len(rig.actuator.machines) == 3, "the same names, and no others"
    assert rig.value("tidegate_pool_action_failures_total", pool="chat", action="scale_up") == 1.0


async def test_who_asks_for_a_pause_gets_it(make: Make) -> None:
    rig = await make()
    tried: list[float] = []
    real = rig.actuator.apply

    async def counted(action: object) -> None:
        tried.append(rig.now)
        await real(action)  # type: ignore[arg-type]

    rig.actuator.apply = counted  # type: ignore[assignment, method-assign]
    rig.actuator.fail_apply = down("slow down", retry_after_s=50.0)
    await rig.tick(4)
    assert len(tried) == 1
    rig.actuator.fail_apply = None
    await rig.tick()
    assert len(tried) == 2
    assert tried[1] - tried[0] >= 50.0
    assert rig.actuator.names(ScaleUp) == ["chat-e1-1"]


async def test_starts_that_are_not_wanted_any_more_are_not_asked_for_again(make: Make) -> None:
    rig = await make(pool(start={"p50_s": 30.0, "p95_s": 60.0, "give_up_s": 60.0, "rest_s": 9000.0, "failures": 1}))
    rig.actuator.fail_apply = down("nobody there")
    await rig.tick(15)
    rig.actuator.fail_apply = None
    before = len(rig.actuator.asked)
    await rig.tick(2)
    assert [one for one in rig.actuator.asked[before:] if isinstance(one, ScaleUp)] == []


async def test_what_is_partly_seen_neither_rises_nor_falls_and_stays_at_the_balancer(make: Make) -> None:
    """A partial observation: what is missing may exist."""
    rig = await make(ready=3)
    for _ in range(3):
        await rig.tick()
    rig.actuator.hidden = {"old-0", "old-2"}
    before = len(rig.actuator.asked)
    await rig.tick(20)
    assert rig.actuator.asked[before:] == []
    assert sorted(rig.gateway.balancer.replicas) == ["old-0", "old-1", "old-2"]
    rig.actuator.hidden = set()
    await rig.tick()
    assert sorted(rig.gateway.balancer.replicas) == ["old-0", "old-1", "old-2"]


async def test_a_restart_in_the_middle_of_a_drain_goes_on_with_it(make: Make) -> None:
    rig = await make(ready=2)
    rig.offer(), rig.offer()
    await rig.tick(8)
    (leaving,) = rig.actuator.names(Drain)[:1]
    await rig.loop.close()
    rig.born()
    await rig.loop.begin()
    rig.probe()
    assert rig.state(leaving) == "ready", "a new balancer knows of no drain"
    held = [rig.offer() for _ in range(4)]
    await rig.tick()
    assert rig.state(leaving) == "draining"
    on_it = [one for one in held if one is not None and one.replica is not None and one.replica.id == leaving]
    await rig.tick(10)
    assert bool(on_it) == (rig.actuator.names(Stop) == [])
    rig.finish_all(*held)
    await rig.until_gone(leaving)
    assert await cut(rig) == 0
    assert len(rig.actuator.machines) == 1


async def test_a_restart_forgets_no_start(make: Make) -> None:
    rig = await make(pool(min_replicas=2))
    rig.actuator.starts = False
    await rig.tick(2)
    await rig.loop.close()
    rig.born()
    await rig.loop.begin()
    await rig.tick(5)
    assert rig.actuator.names(ScaleUp) == ["chat-e1-1", "chat-e1-2"]


async def test_demand_is_not_known_after_a_restart_and_so_lowers_nothing(make: Make) -> None:
    rig = await make(ready=4)
    for _ in range(2):
        tick = await rig.tick(after_s=10.0)
        assert tick is not None
        assert tick.decisions[0].demand is None
        assert tick.decisions[0].change == 0


async def test_a_human_who_sets_a_number_is_left_alone(make: Make) -> None:
    """J13."""
    rig = await make(ready=2)
    rig.actuator.wanted_by_others = 2
    for _ in range(10):
        for _ in range(60):
            rig.offer()
        await rig.tick()
    assert rig.actuator.asked == []
    rig.actuator.wanted_by_others = None
    await rig.tick(2)
    assert rig.actuator.names(ScaleUp) != []


async def test_starts_that_wait_for_a_node_count_and_do_not_run_away(make: Make) -> None:
    """J15."""
    rig = await make(pool(min_replicas=3))
    rig.actuator.starts = False
    await rig.tick(15)
    assert len(rig.actuator.names(ScaleUp)) == 3


async def test_a_start_that_comes_to_nothing_is_given_up_and_its_kind_rests(make: Make) -> None:
    """J16, J17."""
    rig = await make(pool(start={"p50_s": 30.0, "p95_s": 60.0, "give_up_s": 200.0, "failures": 1, "rest_s": 6000.0}))
    rig.actuator.starts = False
    await rig.tick(40)
    assert rig.actuator.names(GiveUp) == ["chat-e1-1"]
    assert rig.actuator.names(ScaleUp) == ["chat-e1-1"], "its kind rests"
    assert rig.actuator.machines == {}
    assert "keeps failing" in str((await rig.store.decisions("chat"))[0].record["fault"])


async def test_a_start_that_became_ready_as_it_was_given_up_serves(make: Make) -> None:
    rig = await make(pool(start={"p50_s": 30.0, "p95_s": 60.0, "give_up_s": 200.0}))
    rig.actuator.starts = False
    rig.actuator.deaf = False
    await rig.tick()
    (name,) = rig.actuator.names(ScaleUp)
    rig.actuator.deaf = True  # it finds the replica ready by the time that it is told, and leaves it alone
    while not rig.actuator.names(GiveUp):
        await rig.tick()
    assert name not in rig.gateway.balancer.replicas, "nothing is sent to what is about to end"
    rig.actuator.starts, rig.actuator.deaf = True, False
    await rig.tick(2)
    assert rig.state(name) == "ready"


async def test_a_start_that_could_not_be_given_up_serves_when_it_is_up(make: Make) -> None:
    rig = await make(pool(start={"p50_s": 30.0, "p95_s": 60.0, "give_up_s": 200.0, "rest_s": 9000.0, "failures": 1}))
    rig.actuator.starts = False
    await rig.tick(3)
    rig.actuator.fail_apply = down("it does not answer")
    while rig.value("tidegate_pool_action_failures_total", pool="chat", action="give_up") is None:
        await rig.tick()
    rig.actuator.fail_apply, rig.actuator.starts = None, True
    await rig.tick(3)
    assert rig.state("chat-e1-1") == "ready"


async def test_a_drain_without_end_waits_and_says_so(make: Make) -> None:
    """J20, wait."""
    rig = await make(pool(down={"hold_s": 60.0, "payback_s": 15.0, "drain_s": 120.0}), ready=2)
    held = [rig.offer(), rig.offer()]
    await rig.tick(40)
    assert rig.actuator.names(Drain) != []
    assert rig.actuator.names(Stop) == []
    assert await cut(rig) == 0
    assert "does not finish its drain" in str((await rig.store.decisions("chat"))[0].record["fault"])
    rig.finish_all(*held)
    await rig.until_gone(rig.actuator.names(Drain)[0])


async def test_a_drain_without_end_is_cut_where_the_policy_says_so(make: Make) -> None:
    """J20, stop."""
    rig = await make(pool(down={"hold_s": 60.0, "payback_s": 15.0, "drain_s": 120.0, "on_deadline": "stop"}), ready=2)
    rig.offer(), rig.offer()
    await rig.tick(8)
    (leaving,) = rig.actuator.names(Drain)[:1]
    await rig.until_gone(leaving)
    assert await cut(rig) == 1


async def test_requests_of_another_balancer_are_seen_before_a_stop(make: Make) -> None:
    rig = await make(ready=2)
    rig.loads = dict.fromkeys(("old-0", "old-1"), RuntimeLoad(running=2.0, waiting=0.0))
    await rig.tick(40)
    (leaving,) = rig.actuator.names(Drain)[:1]
    assert rig.actuator.names(Stop) == []
    rig.loads = dict.fromkeys(("old-0", "old-1"), RuntimeLoad(running=0.0, waiting=0.0))
    await rig.until_gone(leaving)


async def test_a_replica_that_died_is_cleared_away_and_replaced(make: Make) -> None:
    rig = await make(pool(min_replicas=2), ready=2)
    await rig.tick(3)
    rig.actuator.machines["old-0"].phase = Phase.FAILED
    await rig.tick()
    assert "old-0" not in rig.gateway.balancer.replicas, "nothing listens there"
    assert rig.actuator.names(Stop) == ["old-0"]
    assert rig.actuator.names(ScaleUp) == ["chat-e1-1"]


async def test_a_full_disk_is_a_line_in_the_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    rig = await make(ready=1)
    await rig.store.close()
    rig.store._thread = None
    with caplog.at_level(logging.ERROR):
        assert await rig.tick(3) is not None
    assert caplog.messages == []


async def test_ticks_under_random_faults_never_end_the_loop_nor_cut_a_request(make: Make) -> None:
    """J24 at the level of the loop: limits hold whatever fails, and whenever."""
    for seed in range(12):
        rng = random.Random(seed)
        rig = await make(pool(max_replicas=4, down={"hold_s": 30.0, "payback_s": 0.0}), ready=rng.randint(0, 3))
        running: list[object] = []
        for _ in range(40):
            actuator = rig.actuator
            actuator.fail_observe = rng.choice((None, None, None, down(), RuntimeError("bug")))
            actuator.fail_apply = rng.choice((None, None, None, down(retry_after_s=rng.choice((None, 40.0)))))
            actuator.hidden = {name for name in actuator.machines if rng.random() < 0.1}
            actuator.starts = rng.random() < 0.7
            actuator.deaf = rng.random() < 0.2
            if rng.random() < 0.05 and actuator.machines:
                idle = [one for one in actuator.machines.values() if one.phase is Phase.STARTING]
                for one in idle[:1]:
                    one.phase = Phase.FAILED
            running += [rig.offer() for _ in range(rng.choice((0, 0, 20, 60)))]
            await rig.tick()
            if rng.random() < 0.7:
                rig.finish_all(*running)  # type: ignore[arg-type]
                running.clear()
            if rng.random() < 0.05:
                rig.finish_all(*running)  # type: ignore[arg-type]
                running.clear()
                await rig.loop.close()
                rig.born()
                await rig.loop.begin()
            alive = [one for one in actuator.machines.values() if one.phase in (Phase.READY, Phase.STARTING)]
            assert len(alive) <= 4, f"seed {seed}"
            assert await cut(rig) == 0, f"seed {seed}"
        rig.actuator.fail_observe = rig.actuator.fail_apply = None
        rig.actuator.hidden, rig.actuator.starts, rig.actuator.deaf = set(), True, False
        rig.finish_all(*running)  # type: ignore[arg-type]
        await rig.tick(60)
        rig.finish_all()
        assert 1 <= len(rig.actuator.machines) <= 4, f"seed {seed}"
