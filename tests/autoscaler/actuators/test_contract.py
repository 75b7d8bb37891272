"""What every actuator promises, each in a real world of its own."""

from __future__ import annotations

import pytest

from autoscaler.action import Action, Drain, GiveUp, Stop, Undrain
from autoscaler.actuators import ACTUATORS
from autoscaler.fleet import Phase, Stage
from tests.autoscaler.actuators.worlds import POOL, WORLDS, World, all_ready, gone, phases, until, up


def test_every_actuator_is_held_to_the_contract() -> None:
    # dry_run starts nothing; kubernetes keeps the same promises in tests/kubernetes, on a real API server.
    assert set(WORLDS) == set(ACTUATORS) - {"dry_run", "kubernetes"}


async def test_nothing_is_there_at_first(world: World) -> None:
    seen = await world.actuator().observe()
    assert seen.replicas == ()
    assert seen.complete


async def test_a_start_becomes_ready_and_says_where(world: World) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a", "b"))
    assert set(phases(await until(actuator, lambda seen: len(seen.replicas) == 2))) == {"a", "b"}
    await world.settle()
    seen = await all_ready(actuator, "a", "b")
    for one in seen.replicas:
        assert one.fact.start_id == one.fact.id
        assert one.fact.kind == "good"
        assert one.endpoint is not None
        assert one.endpoint.id == one.fact.id
        assert one.fact.stages[Stage.WARM] <= seen.at
        assert one.fact.since_s is not None
    assert len({one.endpoint.url for one in seen.replicas if one.endpoint}) == 2
    assert world.running() == {"a", "b"}
    await actuator.close()


async def test_a_name_is_started_once(world: World) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await actuator.apply(up("a"))
    await world.settle()
    await all_ready(actuator, "a")
    await actuator.apply(up("a", "b"))
    await all_ready(actuator, "a", "b")
    assert [world.starts("a"), world.starts("b")] == [1, 1]
    await actuator.close()


@pytest.mark.parametrize(
    "action",
    [
        Drain(POOL, "nobody", 1.0, "r"),
        Undrain(POOL, "nobody", "r"),
        Stop(POOL, "nobody", 0, "r"),
        GiveUp(POOL, "nobody", None, 0, "r"),
        GiveUp(POOL, None, "nobody", 0, "r"),
        GiveUp(POOL, None, None, 0, "r"),
    ],
)
async def test_ids_that_nobody_knows_do_no_harm(world: World, action: Action) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await world.settle()
    await all_ready(actuator, "a")
    await actuator.apply(action)
    await actuator.apply(action)
    assert phases(await actuator.observe()) == {"a": Phase.READY}
    await actuator.close()


async def test_every_action_may_be_repeated(world: World) -> None:
    actuator = world.actuator()
    await world.settle()
    for _ in range(2):
        await actuator.apply(up("a", "b"))
    await all_ready(actuator, "a", "b")
    for action in (Drain(POOL, "a", 5.0, "r"), Undrain(POOL, "a", "r"), Drain(POOL, "a", 5.0, "r")):
        for _ in range(2):
            await actuator.apply(action)
        assert phases(await actuator.observe()).keys() == {"a", "b"}
    for _ in range(2):
        await actuator.apply(Stop(POOL, "a", 1, "r"))
    await gone(actuator, "a")
    await actuator.apply(Stop(POOL, "a", 1, "r"))
    assert phases(await actuator.observe()) == {"b": Phase.READY}
    assert world.running() == {"b"}
    assert world.starts("a") == 1
    await actuator.close()


async def test_a_start_that_fails_is_shown_as_failed_with_its_reason_and_can_be_cleared_away(world: World) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a", kind="bad"))
    seen = await until(actuator, lambda seen: phases(seen) == {"a": Phase.FAILED})
    assert world.reason in seen.replicas[0].detail
    assert seen.replicas[0].fact.start_id == "a"
    await actuator.close()
    again = world.actuator()
    assert phases(await again.observe()) == {"a": Phase.FAILED}
    await again.apply(Stop(POOL, "a", 0, "it failed"))
    await gone(again, "a")
    await again.close()


async def test_what_cannot_be_read_makes_it_incomplete_and_not_empty(world: World) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await world.settle()
    await all_ready(actuator, "a")
    await world.break_partly()
    seen = await actuator.observe()
    assert phases(seen) == {"a": Phase.READY}
    assert not seen.complete
    await actuator.close()


async def test_closing_leaves_replicas_running_and_the_next_one_finds_them(world: World) -> None:
    first = world.actuator()
    await first.apply(up("a", "b"))
    await world.settle()
    before = await all_ready(first, "a", "b")
    await first.close()
    assert world.running() == {"a", "b"}

    second = world.actuator()
    after = await second.observe()
    assert phases(after) == {"a": Phase.READY, "b": Phase.READY}
    assert [one.endpoint for one in after.replicas] == [one.endpoint for one in before.replicas]
    await second.apply(up("a", "b"))
    assert [world.starts("a"), world.starts("b")] == [1, 1]
    await second.apply(Stop(POOL, "b", 1, "r"))
    await gone(second, "b")
    assert world.running() == {"a"}
    await second.close()


async def test_a_late_start_is_given_up(world: World) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await until(actuator, lambda seen: phases(seen) == {"a": Phase.STARTING})
    for _ in range(2):
        await actuator.apply(GiveUp(POOL, "a", None, 0, "late"))
    await gone(actuator, "a")
    assert world.running() == set()
    await actuator.close()


async def test_giving_up_leaves_a_replica_alone_that_became_ready(world: World) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a", "b"))
    await until(actuator, lambda seen: phases(seen) == {"a": Phase.STARTING, "b": Phase.STARTING})
    await world.settle()
    await all_ready(actuator, "a", "b")
    await actuator.apply(GiveUp(POOL, "a", "a", 1, "late"))
    await actuator.apply(GiveUp(POOL, "b", None, 1, "late"))
    assert phases(await actuator.observe()) == {"a": Phase.READY, "b": Phase.READY}
    assert world.running() == {"a", "b"}
    await actuator.close()
