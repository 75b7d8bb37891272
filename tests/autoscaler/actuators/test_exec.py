"""Commands that hang, fail, babble and leave things behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from autoscaler.action import Drain, GiveUp, Stop
from autoscaler.actuator import Actuator, ActuatorError
from autoscaler.actuators import Surroundings, build_actuator
from autoscaler.local import procfs
from tests.autoscaler.actuators.worlds import POOL, ExecWorld, pool, up


def scripted(tmp_path: Path, script: str, **settings: object) -> Actuator:
    """The script sees what is asked as $1."""
    command = ["/bin/sh", "-c", script, "fleet"]
    return build_actuator(
        pool({"type": "exec", "command": command, **settings}), Surroundings(tmp_path / "state", tmp_path)
    )


async def test_it_is_told_the_whole_action(tmp_path: Path) -> None:
    world = ExecWorld(tmp_path)
    actuator = world.actuator()
    await actuator.apply(up("a", "b"))
    await actuator.apply(Drain(POOL, "a", 60.0, "night"))
    await actuator.apply(GiveUp(POOL, "b", None, 1, "late"))
    assert [json.loads(line) for line in world.fleet.lines("actions")] == [
        {"action": "scale_up", "pool": POOL, "kind": "good", "start_ids": ["a", "b"], "total": 2, "reason": "demand"},
        {"action": "drain", "pool": POOL, "replica": "a", "deadline_s": 60.0, "reason": "night"},
        {"action": "give_up", "pool": POOL, "start_id": "b", "replica": None, "total": 1, "reason": "late"},
    ]


async def test_one_that_hangs_is_killed_with_its_children_at_the_deadline(tmp_path: Path) -> None:
    actuator = scripted(tmp_path, "sleep 60 & echo $! >child; wait", timeout="300ms")
    began = time.monotonic()
    with pytest.raises(ActuatorError, match=r"sh observe did not end within 0.3 s and was killed"):
        await actuator.observe()
    with pytest.raises(ActuatorError, match="sh stop did not end"):
        await actuator.apply(Stop(POOL, "a", 0, "r"))
    assert time.monotonic() - began < 5.0
    assert not await asyncio.to_thread(lives_on, int((tmp_path / "child").read_text()))


def lives_on(pid: int) -> bool:
    """The kernel ends it in its own time; this much is enough."""
    for _ in range(500):
        found = procfs.stat(pid)
        if found is None or not found.alive:
            return False
        time.sleep(0.01)
    return True


async def test_what_a_command_leaves_running_lives_on_and_is_not_waited_for(tmp_path: Path) -> None:
    actuator = scripted(tmp_path, "sleep 60 & echo $! >replica", timeout="10s")
    async with asyncio.timeout(5.0):
        await actuator.apply(up("a"))
    pid = int((tmp_path / "replica").read_text())
    child = procfs.stat(pid)
    assert child is not None
    assert child.alive
    os.kill(pid, signal.SIGKILL)


async def test_a_failure_shows_what_it_said(tmp_path: Path) -> None:
    actuator = scripted(tmp_path, "echo 'quota exceeded' >&2; exit 3")
    with pytest.raises(ActuatorError, match="sh scale_up ended with status 3: quota exceeded") as caught:
        await actuator.apply(up("a"))
    assert caught.value.retry_after_s is None


async def test_status_75_means_later(tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match="it said nothing") as caught:
        await scripted(tmp_path, "exit 75").apply(up("a"))
    assert caught.value.retry_after_s == 30.0


async def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    actuator = build_actuator(pool({"type": "exec", "command": ["./no-such"]}), Surroundings(tmp_path, tmp_path))
    with pytest.raises(ActuatorError, match=r"no-such observe cannot be run: No such file or directory \(.*no-such\)"):
        await actuator.observe()


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match=r"cannot be run: No such file or directory \(.*nowhere"):
        await scripted(tmp_path, "exit 0", directory="nowhere").observe()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo", "did not answer with a list of replicas"),
        ("echo '[]'", "Expected `object`, got `array`"),
        ("echo '{\"replicas\": 3}'", r"Expected `array`, got `int` - at `\$.replicas`"),
        ("head -c 5000000 /dev/zero", "more than 4 MiB"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_and_not_an_empty_fleet(
    tmp_path: Path, script: str, message: str
) -> None:
    with pytest.raises(ActuatorError, match=message):
        await scripted(tmp_path, script).observe()


async def test_it_runs_with_the_variables_of_its_settings(tmp_path: Path) -> None:
    script = 'echo "{\\"replicas\\": [{\\"id\\": \\"$TIDEGATE_POOL-$ZONE\\", \\"phase\\": \\"ready\\"}]}"'
    actuator = scripted(tmp_path, script, environment={"ZONE": "z1"})
    assert [one.fact.id for one in (await actuator.observe()).replicas] == ["chat-z1"]


async def test_a_command_that_reads_nothing_is_as_good(tmp_path: Path) -> None:
    await scripted(tmp_path, "exit 0").apply(up(*(f"name-{number}" for number in range(20_000))))
