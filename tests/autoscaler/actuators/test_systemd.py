"""What is particular to units: rights, templates, strangers, a bus that goes away.

systemd is a stand-in, the bus and the replicas are real.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from autoscaler.action import Stop
from autoscaler.actuator import ActuatorError
from autoscaler.actuators import Surroundings, build_actuator
from autoscaler.fleet import Phase
from autoscaler.local.records import Records
from tests.autoscaler.actuators.service_manager import Service
from tests.autoscaler.actuators.worlds import POOL, SystemdWorld, all_ready, gone, phases, pool, until, up

DENIED = ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required.")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SystemdWorld]:
    made = SystemdWorld(tmp_path)
    try:
        await made.open()
        yield made
    finally:
        await made.close()


async def test_the_unit_is_told_its_port_and_cards(world: SystemdWorld) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    (record,) = Records(world.state).load(POOL)[0]
    assert (world.state / "a.env").read_text().splitlines() == [
        f"PORT={record.port}", "CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=", f"TIDEGATE_POOL={POOL}",
        "TIDEGATE_KIND=good",
    ]  # fmt: skip
    await world.settle()
    await all_ready(actuator, "a")
    await actuator.apply(Stop(POOL, "a", 0, "r"))
    await gone(actuator, "a")
    assert not (world.state / "a.env").exists()
    await actuator.close()


async def test_j22_missing_rights_are_named_and_leave_nothing_behind(world: SystemdWorld) -> None:
    actuator = world.actuator()
    world.manager.refuse = DENIED
    with pytest.raises(ActuatorError, match="polkit") as caught:
        await actuator.apply(up("a"))
    assert caught.value.retry_after_s == 60.0
    assert (await actuator.observe()).replicas == ()
    assert Records(world.state).claims() == (set(), set())
    world.manager.refuse = None
    await actuator.apply(up("a"))
    await world.settle()
    await all_ready(actuator, "a")
    await actuator.close()


async def test_a_stop_that_was_refused_is_not_taken_for_one_that_goes_on(world: SystemdWorld) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await world.settle()
    await all_ready(actuator, "a")
    world.manager.refuse = DENIED
    with pytest.raises(ActuatorError, match="StopUnit"):
        await actuator.apply(Stop(POOL, "a", 0, "r"))
    assert phases(await actuator.observe()) == {"a": Phase.READY}
    await actuator.close()


async def test_without_a_template_every_start_fails_and_says_so(world: SystemdWorld) -> None:
    world.manager.template = "other@"
    actuator = world.actuator()
    await actuator.apply(up("a"))
    seen = await actuator.observe()
    assert phases(seen) == {"a": Phase.FAILED}
    assert "Unit vllm@a.service not found." in seen.replicas[0].detail
    await actuator.apply(Stop(POOL, "a", 0, "it failed"))
    await gone(actuator, "a")
    await actuator.close()


@pytest.mark.parametrize("name", ["a;rm", "../a", "a@b", "a b", "a/b", "%n"])
async def test_j23_names_that_are_no_instances_are_refused(world: SystemdWorld, name: str) -> None:
    actuator = world.actuator()
    with pytest.raises(ActuatorError, match="cannot be a replica's name"):
        await actuator.apply(up(name))
    assert world.manager.calls == []
    await actuator.close()


async def test_j22_a_unit_that_died_is_failed_and_its_name_is_free_again(world: SystemdWorld) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await world.settle()
    await all_ready(actuator, "a")
    process = world.manager.services["vllm@a.service"].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    seen = await until(actuator, lambda seen: phases(seen) == {"a": Phase.FAILED})
    assert "exit-code (status 9); `journalctl -u vllm@a.service`" in seen.replicas[0].detail
    await actuator.apply(Stop(POOL, "a", 0, "it failed"))
    await gone(actuator, "a")
    assert "ResetFailedUnit vllm@a.service" in world.manager.calls
    await actuator.apply(up("a"))
    await all_ready(actuator, "a")
    await actuator.close()


async def test_a_failure_that_systemd_may_not_be_told_to_forget_does_no_harm(world: SystemdWorld) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a", kind="bad"))
    await until(actuator, lambda seen: phases(seen) == {"a": Phase.FAILED})
    await actuator.apply(Stop(POOL, "a", 0, "it failed"))
    world.manager.refuse = DENIED
    assert (await actuator.observe()).replicas == ()
    assert world.manager.services["vllm@a.service"].active == "failed"
    assert (await actuator.observe()).replicas == ()
    await actuator.close()


async def test_one_that_somebody_else_stopped_has_failed(world: SystemdWorld) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await world.settle()
    await all_ready(actuator, "a")
    process = world.manager.services["vllm@a.service"].process
    world.manager.services["vllm@a.service"].active = "deactivating"
    assert phases(await actuator.observe()) == {"a": Phase.STOPPING}
    assert process is not None
    process.terminate()
    seen = await until(actuator, lambda seen: phases(seen) == {"a": Phase.FAILED})
    assert "somebody else stopped it" in seen.replicas[0].detail
    await actuator.close()


async def test_one_that_systemd_restarts_is_starting_again(world: SystemdWorld) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await world.settle()
    first = (await all_ready(actuator, "a")).replicas[0].fact.since_s
    service = world.manager.services["vllm@a.service"]
    service.active = "activating"
    assert phases(await actuator.observe()) == {"a": Phase.STARTING}
    service.active = "active"
    again = (await all_ready(actuator, "a")).replicas[0].fact.since_s
    assert first is not None
    assert again is not None
    assert again > first
    await actuator.close()


async def test_instances_of_others_count_and_those_of_another_pool_do_not(world: SystemdWorld) -> None:
    chat = world.actuator()
    settings = {"type": "systemd", "unit": "vllm@{name}.service", "bus": world.bus.address, "ports": [0, 0]}
    other = build_actuator(pool(settings, name="other"), Surroundings(world.state, world.folder))
    await other.apply(up("o"))
    (world.state / "by-hand.env").write_text("PORT=1\nTIDEGATE_KIND=good\n")
    await world.manager._start(
        world.manager.services.setdefault("vllm@by-hand.service", Service("vllm@by-hand.service", 99))
    )
    seen = await chat.observe()
    assert phases(seen) == {"by-hand": Phase.READY}
    assert (seen.replicas[0].fact.start_id, seen.replicas[0].endpoint) == (None, None)
    assert phases(await other.observe()) == {"by-hand": Phase.READY, "o": Phase.STARTING}
    await chat.apply(Stop(POOL, "by-hand", 0, "told to"))
    await gone(chat, "by-hand")
    await chat.close()
    await other.close()


async def test_j22_a_bus_that_is_gone_is_an_error_and_its_return_is_noticed(world: SystemdWorld) -> None:
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await world.settle()
    await all_ready(actuator, "a")
    await world.bus.end()
    for _ in range(2):
        with pytest.raises(ActuatorError, match=r"cannot be asked|did not answer"):
            await actuator.observe()
    with pytest.raises(ActuatorError):
        await actuator.apply(Stop(POOL, "a", 0, "r"))
    await world.bus.open()
    assert phases(await actuator.observe()) == {"a": Phase.READY}
    await actuator.close()


async def test_a_systemd_that_says_nothing_is_left_at_the_deadline(world: SystemdWorld) -> None:
    actuator = world.actuator(timeout="200ms")
    world.bus.mute()
    async with asyncio.timeout(5.0):
        with pytest.raises(ActuatorError, match=r"did not answer ListUnitsByPatterns within 0.2 s"):
            await actuator.observe()
        with pytest.raises(ActuatorError, match=r"did not answer StartUnit within 0.2 s"):
            await actuator.apply(up("a"))
    await actuator.close()
