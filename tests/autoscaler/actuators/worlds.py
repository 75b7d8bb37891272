"""For each actuator a small real world in which it can start and end replicas, and what is true in that world."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiohttp import web

from autoscaler.action import ScaleUp
from autoscaler.actuator import Actuator, Observation
from autoscaler.actuators import Surroundings, build_actuator
from autoscaler.fleet import Phase
from autoscaler.policy.pools import PoolSettings
from tests.autoscaler.actuators.fleet import Fleet
from tests.autoscaler.actuators.service_manager import Bus

FLEET = Path(__file__).with_name("fleet.py")
REPLICA = Path(__file__).with_name("replica.py")
POOL = "chat"
PATIENCE_S = 20.0
"""Nothing here takes a second on an idle machine; a busy one gets this long."""


class World(Protocol):
    """Where one kind of actuator acts. Kind `good` starts well and `bad` fails."""

    reason: str
    """Part of what is told of a failure."""

    def actuator(self) -> Actuator:
        """A new one on this world, as after a restart of the process."""
        ...

    def running(self) -> set[str]:
        """Names of the replicas that really run."""
        ...

    def starts(self, name: str) -> int:
        """How often a replica of that name was really started."""
        ...

    async def settle(self) -> None:
        """Let starting replicas become ready."""
        ...

    async def break_partly(self) -> None:
        """Make a part of what there is unreadable for the actuator."""
        ...

    async def open(self) -> None:
        """Make it ready."""
        ...

    async def close(self) -> None:
        """End everything that runs in it."""
        ...


def pool(actuator: dict[str, Any], **others: Any) -> PoolSettings:
    kinds = [{"name": "good", "gpus": 0}, {"name": "bad", "gpus": 0}]
    return PoolSettings.model_validate({"name": POOL, "kinds": kinds, "actuator": actuator, **others})


def up(*names: str, kind: str = "good") -> ScaleUp:
    return ScaleUp(POOL, kind, names, len(names), "demand")


async def until(actuator: Actuator, wanted: Callable[[Observation], bool]) -> Observation:
    """Observe, as the loop does tick by tick, until it is as wanted."""
    seen: Observation | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen = await actuator.observe()
                if wanted(seen):
                    return seen
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never came to be; at last there was {seen}") from None


def phases(seen: Observation) -> dict[str, Phase]:
    return {one.fact.id: one.fact.phase for one in seen.replicas}


async def all_ready(actuator: Actuator, *names: str) -> Observation:
    return await until(actuator, lambda seen: phases(seen) == dict.fromkeys(names, Phase.READY))


async def gone(actuator: Actuator, name: str) -> Observation:
    return await until(actuator, lambda seen: name not in phases(seen))


class ProcessWorld:
    """Real processes. A replica counts its starts in a file."""

    reason = "no such model"

    def __init__(self, folder: Path, mode: str = "loading", **settings: Any) -> None:
        self.directory = directory = folder
        self.state = directory / "state"
        count = 'echo start >> "started-$1"; [ "$2" = bad ] && mode=fail || mode=$3; exec "$4" "$5" "$6" "$mode"'
        self.settings: dict[str, Any] = {
            "type": "process",
            "command": ["/bin/sh", "-c", count, "sh", "{name}", "{kind}", mode, sys.executable, str(REPLICA), "{port}"],
            "ports": [0, 0],
            "grace_s": 0.5,
            "ready_timeout_s": 0.5,
            **settings,
        }  # fmt: skip

    def actuator(self) -> Actuator:
        return build_actuator(pool(self.settings), Surroundings(self.state, self.directory))

    def processes(self) -> dict[int, str]:
        """Name by pid, of everything whose environment says that it is a replica of this world."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    variables = (entry / "environ").read_bytes().split(b"\0")
                    zombie = (entry / "stat").read_text().rsplit(")")[-1].split()[0] == "Z"
                except OSError:
                    continue
                for variable in variables:
                    key, _, value = variable.decode(errors="replace").partition("=")
                    if key == "TIDEGATE_REPLICA" and value.startswith(str(self.state)) and not zombie:
                        found[int(entry.name)] = Path(value).stem
        return found

    def running(self) -> set[str]:
        return set(self.processes().values())

    def starts(self, name: str) -> int:
        try:
            return len((self.directory / f"started-{name}").read_text().splitlines())
        except FileNotFoundError:
            return 0

    async def settle(self) -> None:
        (self.directory / "ready").touch()

    async def break_partly(self) -> None:
        (self.state / POOL / "torn.json").write_text('{"name": "torn", "po')

    async def open(self) -> None:
        """A directory is all it takes."""

    async def close(self) -> None:
        for _ in range(2):
            for pid in self.processes():
                with suppress(ProcessLookupError):  # it may end by itself just now
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.02)  # one that was just becoming its program had no environment to be known by


class FleetWorld:
    """A fleet that somebody else runs, as files."""

    reason = "no such model"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = Fleet(folder)

    async def open(self) -> None:
        """A directory is all it takes."""

    def running(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.replica")}

    def starts(self, name: str) -> int:
        return self.fleet.lines("started").count(name)

    async def settle(self) -> None:
        (self.folder / "ready").touch()

    async def break_partly(self) -> None:
        (self.folder / "torn.replica").write_text('{"kin')

    async def close(self) -> None:
        """Files end with their directory."""


class ExecWorld(FleetWorld):
    """A command that runs the fleet."""

    def actuator(self) -> Actuator:
        # Neither site packages nor the environment: an interpreter starts in 20 ms so.
        command = [sys.executable, "-I", "-S", str(FLEET), str(self.folder)]
        return build_actuator(pool({"type": "exec", "command": command}), Surroundings(self.folder, self.folder))


class WebhookWorld(FleetWorld):
    """A service that runs the fleet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.requests: list[web.Request] = []
        self.answer: Callable[[web.Request], web.StreamResponse] | None = None
        """What it says instead, where a test wants it to misbehave."""
        app = web.Application()
        app.router.add_route("*", "/pools/chat", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self.url = ""

    async def open(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/pools/chat"

    def actuator(self, **settings: Any) -> Actuator:
        around = Surroundings(self.folder, self.folder, environ={"TOKEN": "secret"})
        return build_actuator(pool({"type": "webhook", "url": self.url, **settings}), around)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.answer is not None:
            return self.answer(request)
        if request.method == "GET":
            return web.json_response(self.fleet.observe())
        self.fleet.apply(await request.json())
        return web.Response(status=202)

    async def close(self) -> None:
        await self._runner.cleanup()


class SystemdWorld:
    """A stand-in for systemd on a real bus."""

    reason = "exit-code (status 1)"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.bus = Bus(folder, self.state, REPLICA)
        self.manager = self.bus.manager

    async def open(self) -> None:
        if not Bus.available():
            pytest.skip("there is no dbus-daemon on this machine")
        await self.bus.open()

    def actuator(self, **settings: Any) -> Actuator:
        unit = {"type": "systemd", "unit": "vllm@{name}.service", "bus": self.bus.address, "ports": [0, 0], **settings}
        return build_actuator(pool(unit), Surroundings(self.state, self.folder))

    def running(self) -> set[str]:
        active = [one.name for one in self.manager.services.values() if one.active == "active"]
        return {name.removeprefix("vllm@").removesuffix(".service") for name in active}

    def starts(self, name: str) -> int:
        return self.manager.services[f"vllm@{name}.service"].starts

    async def settle(self) -> None:
        (self.folder / "ready").touch()

    async def break_partly(self) -> None:
        (self.state / POOL / "torn.json").write_text('{"name": "torn", "po')

    async def close(self) -> None:
        await self.bus.close()


Make = Callable[..., ProcessWorld]
"""Makes worlds that end with the test: `make(mode, **settings)`."""
WORLDS: dict[str, Callable[[Path], World]] = {
    "process": ProcessWorld,
    "systemd": SystemdWorld,
    "exec": ExecWorld,
    "webhook": WebhookWorld,
}
