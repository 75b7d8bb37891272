"""What is particular to replicas that are processes: signals, sessions, logs, ports, and what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec
import pytest

from autoscaler.action import GiveUp, Stop
from autoscaler.actuator import ActuatorError
from autoscaler.actuators import Surroundings, build_actuator
from autoscaler.fleet import Phase
from autoscaler.local import procfs
from autoscaler.local.records import Record, Records
from tests.autoscaler.actuators.worlds import (
    PATIENCE_S,
    POOL,
    Make,
    ProcessWorld,
    all_ready,
    gone,
    phases,
    pool,
    until,
    up,
)


def record_of(world: ProcessWorld, name: str) -> Record:
    return next(one for one in Records(world.state).load(POOL)[0] if one.name == name)


# ---------------------------------------------------------------------- ending


async def test_one_that_ignores_sigterm_is_killed_after_the_grace(make: Make) -> None:
    actuator = make("stubborn", grace_s=0.3).actuator()
    await actuator.apply(up("a"))
    await all_ready(actuator, "a")
    await actuator.apply(Stop(POOL, "a", 0, "r"))
    assert phases(await actuator.observe()) == {"a": Phase.STOPPING}
    await gone(actuator, "a")
    await actuator.close()


async def test_the_grace_goes_on_over_a_restart(make: Make) -> None:
    world = make("stubborn", grace_s=0.3)
    first = world.actuator()
    await first.apply(up("a"))
    await all_ready(first, "a")
    await first.apply(Stop(POOL, "a", 0, "r"))
    await first.close()
    second = world.actuator()
    await gone(second, "a")
    assert world.running() == set()
    await second.close()


async def test_workers_that_outlive_their_server_are_ended_too_and_hold_their_place_until_then(make: Make) -> None:
    world = make("worker", grace_s=0.4)
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await all_ready(actuator, "a")
    assert len(world.processes()) > 1
    await actuator.apply(Stop(POOL, "a", 0, "r"))
    leader = record_of(world, "a").pid
    assert leader is not None
    await until(actuator, lambda _: procfs.stat(leader) is None)
    assert phases(await actuator.observe()) == {"a": Phase.STOPPING}
    await gone(actuator, "a")
    assert world.processes() == {}
    await actuator.close()


async def test_one_that_dies_is_failed_and_its_workers_go_with_the_stop(make: Make) -> None:
    world = make("worker", grace_s=0.2)
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await all_ready(actuator, "a")
    leader = record_of(world, "a").pid
    assert leader is not None
    os.kill(leader, signal.SIGKILL)
    seen = await until(actuator, lambda seen: phases(seen) == {"a": Phase.FAILED})
    assert "was killed by signal 9" in seen.replicas[0].detail
    assert "serving on" in seen.replicas[0].detail
    assert world.running() == {"a"}
    await actuator.apply(Stop(POOL, "a", 0, "it failed"))
    await gone(actuator, "a")
    assert world.running() == set()
    await actuator.close()


LEADER_ENDS = """
import ctypes, os, platform, threading, time
def last():
    time.sleep(0.3)
    os._exit(7)
threading.Thread(target=last).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # exit(2): this thread only
"""


def test_how_a_process_ended_is_known_once_its_last_thread_has() -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", LEADER_ENDS], os.environ)
    while (found := procfs.stat(pid)) is not None and found.alive:
        time.sleep(0.001)
    assert found is not None
    assert found.state == "Z"
    assert procfs.reap(pid) is None
    status = procfs.reap(pid, 30.0)
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == 7
    assert procfs.reap(pid, 30.0) is None, "it is nobody's any more"


async def test_a_process_that_got_the_same_number_later_is_never_signalled(make: Make) -> None:
    world = make()
    bystander = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    try:
        found = procfs.stat(bystander.pid)
        assert found is not None
        records = Records(world.state)
        records.save(
            Record(
                name="a", pool=POOL, kind="good", port=1, boot=records.boot, asked_at=0.0, started_at=0.0, ready_at=1.0,
                pid=bystander.pid, ticks=found.ticks - 1,
            )
        )  # fmt: skip
        actuator = world.actuator()
        seen = await actuator.observe()
        assert phases(seen) == {"a": Phase.FAILED}
        assert "how is not known" in seen.replicas[0].detail
        await actuator.apply(Stop(POOL, "a", 0, "r"))
        await gone(actuator, "a")
        assert procfs.lives(bystander.pid, found.ticks)
        await actuator.close()
    finally:
        bystander.kill()
        await bystander.wait()


# ---------------------------------------------------------------------- restarts and crashes


async def test_replicas_outlive_the_process_that_started_them(make: Make, tmp_path: Path) -> None:
    world = make()
    script = (
        "import asyncio, json, sys; from pathlib import Path\n"
        "from tests.autoscaler.actuators.worlds import ProcessWorld, all_ready, up\n"
        "async def main():\n"
        f"    actuator = ProcessWorld(Path({str(tmp_path)!r}), 'ready').actuator()\n"
        "    await actuator.apply(up('a')); await all_ready(actuator, 'a')\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=root)
    assert await process.wait() == 0
    actuator = world.actuator()
    seen = await actuator.observe()
    assert phases(seen) == {"a": Phase.READY}
    assert world.starts("a") == 1
    await actuator.apply(Stop(POOL, "a", 0, "r"))
    await gone(actuator, "a")
    assert world.running() == set()
    await actuator.close()


async def test_a_start_whose_pid_nobody_noted_is_found_by_its_environment(make: Make) -> None:
    world = make()
    actuator = world.actuator()
    await actuator.apply(up("a"))
    await all_ready(actuator, "a")
    records = Records(world.state)
    known = record_of(world, "a")
    records.save(msgspec.structs.replace(known, pid=None, ticks=None, ready_at=None, started_at=None))
    await all_ready(actuator, "a")
    assert (record_of(world, "a").pid, record_of(world, "a").ticks) == (known.pid, known.ticks)
    assert world.starts("a") == 1
    await actuator.close()


async def test_a_start_that_never_came_to_a_process_is_failed(make: Make) -> None:
    world = make()
    records = Records(world.state)
    records.save(Record(name="a", pool=POOL, kind="good", port=1, boot=records.boot, asked_at=0.0))
    actuator = world.actuator()
    seen = await actuator.observe()
    assert phases(seen) == {"a": Phase.FAILED}
    assert "interrupted" in seen.replicas[0].detail
    await actuator.apply(Stop(POOL, "a", 0, "it failed"))
    await gone(actuator, "a")
    await actuator.close()


async def test_after_another_boot_nothing_is_left(make: Make) -> None:
    world = make()
    Records(world.state).save(
        Record(name="a", pool=POOL, kind="good", port=1, boot="another", asked_at=0.0, pid=os.getpid(), ticks=1)
    )
    actuator = world.actuator()
    seen = await actuator.observe()
    assert seen.replicas == ()
    assert seen.complete
    await actuator.close()


async def test_a_state_directory_that_cannot_be_used_is_named(make: Make, tmp_path: Path) -> None:
    world = make()
    (tmp_path / "state").write_text("in the way")
    actuator = world.actuator()
    with pytest.raises(ActuatorError, match=str(tmp_path / "state")):
        await actuator.apply(up("a"))
    with pytest.raises(ActuatorError, match=str(tmp_path / "state")):
        await actuator.observe()
    await actuator.close()


async def test_pools_that_start_at_once_get_different_ports(make: Make, tmp_path: Path) -> None:
    world = make()
    pools = [pool(world.settings, name=f"p{number}") for number in range(4)]
    actuators = [build_actuator(one, Surroundings(world.state, tmp_path)) for one in pools]
    await asyncio.gather(*(actuator.apply(up(f"r{number}")) for number, actuator in enumerate(actuators)))
    records = [one for settings in pools for one in Records(world.state).load(settings.name)[0]]
    assert len({record.port for record in records}) == 4
    for number, actuator in enumerate(actuators):
        await all_ready(actuator, f"r{number}")
        await actuator.close()


async def test_a_lock_that_somebody_keeps_is_waited_for_in_vain(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    monkeypatch.setattr("autoscaler.local.records._LOCK_WAIT_S", 0.05)
    actuator = world.actuator()
    with Records(world.state).lock():
        with pytest.raises(ActuatorError, match=r"another process holds .*/\.lock") as caught:
            await actuator.apply(up("a"))
        assert caught.value.retry_after_s == 1.0
    await actuator.apply(up("a"))
    await all_ready(actuator, "a")
    await actuator.close()


# ---------------------------------------------------------------------- starting


@pytest.mark.parametrize("name", ["a;rm", "../a", "", ".a", "a b", "a\n", "a/b", "x" * 200, "{port}"])
async def test_names_that_are_no_names_are_refused(make: Make, name: str) -> None:
    world = make()
    actuator = world.actuator()
    with pytest.raises(ActuatorError, match="cannot be a replica's name"):
        await actuator.apply(up(name))
    assert (await actuator.observe()).replicas == ()
    await actuator.close()


async def test_a_kind_that_the_pool_has_not_is_refused(make: Make) -> None:
    actuator = make().actuator()
    with pytest.raises(ActuatorError, match="has no kind 'huge'"):
        await actuator.apply(up("a", kind="huge"))
    await actuator.close()


async def test_a_program_that_is_not_there_fails_with_the_shells_words(make: Make) -> None:
    actuator = make(command=["no-such-program", "{port}"]).actuator()
    await actuator.apply(up("a"))
    seen = await until(actuator, lambda seen: phases(seen) == {"a": Phase.FAILED})
    assert "no-such-program" in seen.replicas[0].detail
    assert "exit status 127" in seen.replicas[0].detail
    await actuator.close()


async def test_words_reach_the_program_as_they_are_and_variables_too(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/ours")
    monkeypatch.setenv("HF_TOKEN", "t")
    (tmp_path / "sub").mkdir()
    script = 'printf "%s\\n" "$0" "$@" >out; env >env; sleep 60'
    world = make(
        command=["/bin/sh", "-c", script, '{"a": {"b": 1}}', "$(id)", "{name}-{port}"],
        environment={"PORT": "{port}", "WHO": "{pool}/{kind}/{name}"},
        directory="sub",
    )  # fmt: skip
    actuator = world.actuator()
    await actuator.apply(up("a"))
    port = record_of(world, "a").port
    environment, out = tmp_path / "sub" / "env", tmp_path / "sub" / "out"
    await until(actuator, lambda _: environment.exists() and "PORT" in environment.read_text())
    assert out.read_text().splitlines() == ['{"a": {"b": 1}}', "$(id)", f"a-{port}"]
    variables = dict(line.split("=", 1) for line in environment.read_text().splitlines() if "=" in line)
    assert (variables["PORT"], variables["WHO"], variables["HF_TOKEN"]) == (str(port), "chat/good/a", "t")
    assert variables["CUDA_VISIBLE_DEVICES"] == ""
    assert "NOTIFY_SOCKET" not in variables
    await actuator.close()


async def test_ports_that_others_have_are_passed_over(make: Make) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        first = other.getsockname()[1]
        world = make(ports=[first, min(first + 50, 65_535)])
        actuator = world.actuator()
        await actuator.apply(up("a", "b"))
        ports = [record_of(world, "a").port, record_of(world, "b").port]
        assert first not in ports
        assert ports[0] != ports[1]
        await all_ready(actuator, "a", "b")
        narrow = make(ports=[first, first]).actuator()
        with pytest.raises(ActuatorError, match=f"no free port from {first} to {first}"):
            await narrow.apply(up("c"))
        await actuator.close()


async def test_one_that_hangs_is_starting_and_holds_nobody_up(make: Make) -> None:
    actuator = make("hang", ready_timeout_s=0.2).actuator()
    await actuator.apply(up("a", "b", "c"))
    async with asyncio.timeout(5.0):
        for _ in range(3):
            assert set(phases(await actuator.observe()).values()) == {Phase.STARTING}
    await actuator.close()


async def test_giving_up_asks_once_more_whether_it_is_ready(make: Make) -> None:
    world = make("loading")
    actuator = world.actuator()
    await actuator.apply(up("a"))
    port = record_of(world, "a").port
    await world.settle()

    def listening() -> None:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)

    await asyncio.wait_for(asyncio.to_thread(listening), PATIENCE_S)
    await actuator.apply(GiveUp(POOL, "a", None, 0, "late"))
    assert phases(await actuator.observe()) == {"a": Phase.READY}
    await actuator.close()


async def test_logs_are_bounded(make: Make) -> None:
    script = 'echo {port}; while :; do printf "%01000d\\n" 7; sleep 0.005; done'
    world = make(command=["/bin/sh", "-c", script], log_bytes=20_000)
    actuator = world.actuator()
    await actuator.apply(up("a"))
    path = world.state / POOL / "a.log"
    await until(actuator, lambda _: path.with_name("a.log.1").exists())
    grown = path.stat().st_size
    await until(actuator, lambda _: path.stat().st_size > grown)
    largest = 0
    for _ in range(30):
        await actuator.observe()
        largest = max(largest, path.stat().st_size)
        await asyncio.sleep(0.01)
    assert largest < 60_000
    assert b"\0" not in path.read_bytes()
    await actuator.close()


async def test_logs_of_the_gone_are_kept_for_a_while(make: Make) -> None:
    world = make(command=["/bin/false", "{port}"])
    actuator = world.actuator()
    names = [f"a{number}" for number in range(25)]
    await actuator.apply(up(*names))
    await until(actuator, lambda seen: set(phases(seen).values()) == {Phase.FAILED})
    for name in names:
        await actuator.apply(Stop(POOL, name, 0, "it failed"))
    assert (await actuator.observe()).replicas == ()
    assert len(list((world.state / POOL).glob("*.log"))) == 20
    await actuator.close()
