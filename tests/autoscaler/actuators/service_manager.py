"""A small stand-in for systemd on a real message bus, with real processes.

It knows template units by their prefix, reads their environment file as systemd would, and answers with systemd's own
names and errors. systemd itself does not run in a container.
"""

from __future__ import annotations

import asyncio
import fnmatch
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from dbus_fast import DBusError, Message
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusInt32, DBusObjectPath, DBusSignature, DBusStr
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

Texts = Annotated[list[str], DBusSignature("as")]
Rows = Annotated[list[list[Any]], DBusSignature("a(ssssssouso)")]
NAME = "org.freedesktop.systemd1"
ROOT = "/org/freedesktop/systemd1"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
"""


@dataclass
class Service:
    """One unit's state."""

    name: str
    number: int
    active: str = "inactive"
    result: str = "success"
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    watch: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def path(self) -> str:
        return f"{ROOT}/unit/u{self.number}"


class ServiceProperties(ServiceInterface):
    def __init__(self, service: Service) -> None:
        super().__init__(f"{NAME}.Service")
        self.service = service

    @dbus_property(access=PropertyAccess.READ)
    def Result(self) -> DBusStr:
        return self.service.result

    @dbus_property(access=PropertyAccess.READ)
    def ExecMainStatus(self) -> DBusInt32:
        code = self.service.process.returncode if self.service.process else 0
        return abs(code or 0)


class Manager(ServiceInterface):
    """`refuse`: a D-Bus error name that every start and stop gets. `mute`: it answers nothing."""

    def __init__(self, environment: Path, command: list[str]) -> None:
        super().__init__(f"{NAME}.Manager")
        self.environment = environment
        self.command = command
        self.services: dict[str, Service] = {}
        self.bus: MessageBus | None = None
        self.refuse: tuple[str, str] | None = None
        self.template = "vllm@"
        self.calls: list[str] = []

    @dbus_method()
    def ListUnitsByPatterns(self, states: Texts, patterns: Texts) -> Rows:
        found = [one for one in self.services.values() if one.active != "inactive"]
        return [
            [one.name, one.name, "loaded", one.active, "-", "", one.path, 0, "", "/"]
            for one in found
            if any(fnmatch.fnmatch(one.name, pattern) for pattern in patterns)
        ]

    @dbus_method()
    async def StartUnit(self, name: DBusStr, mode: DBusStr) -> DBusObjectPath:
        self._check("StartUnit", name)
        if not name.startswith(self.template):
            raise DBusError(f"{NAME}.NoSuchUnit", f"Unit {name} not found.")
        service = self.services.setdefault(name, Service(name, len(self.services)))
        if service.active in ("inactive", "failed"):
            await self._start(service)
        return f"{ROOT}/job/1"

    @dbus_method()
    def StopUnit(self, name: DBusStr, mode: DBusStr) -> DBusObjectPath:
        self._check("StopUnit", name)
        service = self.services.get(name)
        if service is None:
            raise DBusError(f"{NAME}.NoSuchUnit", f"Unit {name} not loaded.")
        if service.active == "active" and service.process is not None:
            service.active = "deactivating"
            service.process.terminate()
        return f"{ROOT}/job/2"

    @dbus_method()
    def ResetFailedUnit(self, name: DBusStr):
        self._check("ResetFailedUnit", name)
        service = self.services.get(name)
        if service is None:
            raise DBusError(f"{NAME}.NoSuchUnit", f"Unit {name} not loaded.")
        if service.active == "failed":
            service.active = "inactive"

    def _check(self, member: str, name: str) -> None:
        self.calls.append(f"{member} {name}")
        if self.refuse is not None:
            raise DBusError(*self.refuse)

    async def _start(self, service: Service) -> None:
        instance = service.name.removeprefix(self.template).removesuffix(".service")
        lines = (self.environment / f"{instance}.env").read_text().splitlines()
        variables = dict(line.split("=", 1) for line in lines)
        mode = "fail" if variables["TIDEGATE_KIND"] == "bad" else "loading"
        command = [*self.command, variables["PORT"], mode]
        service.process = await asyncio.create_subprocess_exec(
            *command, env=variables, cwd=self.environment.parent, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        service.starts += 1
        service.active = "active"
        assert self.bus is not None
        self.bus.unexport(service.path)
        self.bus.export(service.path, ServiceProperties(service))
        service.watch = asyncio.create_task(self._watch(service, service.process))

    async def _watch(self, service: Service, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        asked = service.active == "deactivating"
        failed = status not in (0, -signal.SIGTERM) if asked else status != 0
        service.active = "failed" if failed else "inactive"
        service.result = "exit-code" if failed else "success"


class Bus:
    """A private dbus-daemon with the stand-in on it."""

    def __init__(self, folder: Path, environment: Path, replica: Path) -> None:
        self._folder = folder
        self.address = f"unix:path={folder}/bus"
        self.manager = Manager(environment, [sys.executable, "-I", "-S", str(replica)])
        self._daemon: asyncio.subprocess.Process | None = None

    @staticmethod
    def available() -> bool:
        return shutil.which("dbus-daemon") is not None

    async def open(self) -> None:
        config = self._folder / "bus.conf"
        config.write_text(CONFIG.format(path=self._folder / "bus"))
        self._daemon = await asyncio.create_subprocess_exec(
            "dbus-daemon", f"--config-file={config}", "--nofork", "--print-address",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert self._daemon.stdout is not None
        await self._daemon.stdout.readline()
        await self.serve()

    async def serve(self) -> None:
        """Appear on the bus."""
        bus = await MessageBus(bus_address=self.address).connect()
        self.manager.bus = bus
        bus.export(ROOT, self.manager)
        await bus.request_name(NAME)

    def mute(self) -> None:
        """Take calls from now on and answer none."""
        assert self.manager.bus is not None
        self.manager.bus.add_message_handler(_swallow)

    async def end(self) -> None:
        """End the daemon, as when D-Bus restarts; what it served runs on."""
        assert self.manager.bus is not None
        self.manager.bus.disconnect()
        await self.manager.bus.wait_for_disconnect()
        assert self._daemon is not None
        self._daemon.terminate()
        await self._daemon.wait()

    async def close(self) -> None:
        for service in self.manager.services.values():
            if service.process is not None and service.process.returncode is None:
                with suppress(ProcessLookupError):
                    service.process.kill()
            if service.watch is not None:
                await service.watch
        if self._daemon is not None and self._daemon.returncode is None:
            await self.end()


def _swallow(_message: Message) -> bool:
    return True
