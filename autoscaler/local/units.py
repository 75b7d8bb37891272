"""systemd over D-Bus, as far as replicas need it: start, stop, list (org.freedesktop.systemd1(5)).

The one door to dbus_fast.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dbus_fast import BusType, DBusFastError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from autoscaler.actuator import ActuatorError

log = logging.getLogger(__name__)

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = f"{_SYSTEMD}.Manager"
_BUS_TYPES = {"system": BusType.SYSTEM, "user": BusType.SESSION}
_NOT_ALLOWED = (
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
)
_NOT_ALLOWED_LATER_S = 60.0
"""Rights change when an operator changes them; asking four times a minute would only fill systemd's log."""
_WHY_S = 1.0
"""Longest wait for the reason of a failure, which is for people; the look at all units must not wait for it."""
_NO_SUCH_UNIT = f"{_SYSTEMD}.NoSuchUnit"


class UnitError(ActuatorError):
    """systemd looked at the unit and refuses it: there is no template, it cannot be loaded, it is masked."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit in systemd's own words."""

    name: str
    active: str
    """`active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`, ..."""
    path: str
    """Its D-Bus object."""
    job: bool
    """Something is queued for it."""


class Units:
    """The units of one service manager. Connects when asked, and anew after the connection was lost."""

    def __init__(self, bus: str, timeout_s: float) -> None:
        """`bus`: `system`, `user`, or an address."""
        self._where = bus
        self._timeout_s = timeout_s
        self._bus: MessageBus | None = None

    async def matching(self, pattern: str) -> list[Unit]:
        """Units in memory whose name matches; those that are inactive and have no job are mostly not in memory."""
        (rows,) = await self._call("ListUnitsByPatterns", "asas", [[], [pattern]])
        # name, description, load, active, sub, following, path, job id, job type, job path
        return [Unit(name=row[0], active=row[3], path=row[6], job=row[7] != 0) for row in rows]

    async def start(self, unit: str) -> None:
        """Queue a start. UnitError if there can be no such unit."""
        await self._call("StartUnit", "ss", [unit, "replace"])

    async def stop(self, unit: str) -> None:
        """Queue a stop; nothing if there is no such unit."""
        await self._call("StopUnit", "ss", [unit, "replace"], absent_ok=True)

    async def forget_failure(self, unit: str) -> None:
        """Let a failed unit go from systemd's memory. Where that is not allowed it stays there and does no harm."""
        try:
            await self._call("ResetFailedUnit", "s", [unit], absent_ok=True)
        except ActuatorError as error:
            log.info("the failed unit %s stays in memory: %s", unit, error)

    async def failure(self, unit: Unit) -> str:
        """Why it failed, such as `exit-code (status 1)`, `start-limit-hit`, `oom-kill`; empty if systemd cannot say."""
        try:
            (found,) = await self._call(
                "GetAll",
                "s",
                [f"{_SYSTEMD}.Service"],
                interface="org.freedesktop.DBus.Properties",
                path=unit.path,
                timeout_s=_WHY_S,
            )
        except ActuatorError:
            return ""
        properties: dict[str, Variant] = found
        status = properties.get("ExecMainStatus")
        result = properties.get("Result")
        text = properties.get("StatusText")
        words = "failed" if result is None else str(result.value)
        if status is not None and status.value:
            words += f" (status {status.value})"
        return f"{words}: {text.value}" if text is not None and text.value else words

    async def close(self) -> None:
        """Let the connection go."""
        if self._bus is not None:
            self._bus.disconnect()
            with suppress(Exception):  # why it ended is of no interest any more
                await asyncio.wait_for(self._bus.wait_for_disconnect(), 1.0)  # type: ignore[no-untyped-call]
            self._bus = None

    async def _call(
        self,
        member: str,
        signature: str,
        body: list[Any],
        *,
        interface: str = _MANAGER,
        path: str = "/org/freedesktop/systemd1",
        absent_ok: bool = False,
        timeout_s: float | None = None,
    ) -> list[Any]:
        """The reply's values. ActuatorError if there is none, UnitError if the unit is at fault."""
        message = Message(_SYSTEMD, path, interface, member, signature=signature, body=body)
        timeout_s = min(timeout_s or self._timeout_s, self._timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                bus = await self._connected()
                reply = await bus.call(message)
        except TimeoutError:
            await self.close()
            raise ActuatorError(f"systemd did not answer {member} within {timeout_s:g} s") from None
        except (OSError, EOFError, DBusFastError) as error:
            await self.close()
            raise ActuatorError(f"systemd cannot be asked over the {self._where} bus: {error}") from None
        assert reply is not None
        if reply.message_type is MessageType.ERROR:
            name = reply.error_name or ""
            if absent_ok and name == _NO_SUCH_UNIT:
                return []
            raise _refusal(name, f"{member}({', '.join(map(str, body))})", reply.body)
        return list(reply.body)

    async def _connected(self) -> MessageBus:
        if self._bus is not None and not self._bus.connected:
            await self.close()
        if self._bus is None:
            kind = _BUS_TYPES.get(self._where)
            bus = MessageBus(bus_type=kind) if kind is not None else MessageBus(bus_address=self._where)
            self._bus = await bus.connect()
        return self._bus


def _refusal(name: str, what: str, body: list[Any]) -> ActuatorError:
    said = f"{what}: {body[0] if body else name}"
    if name in _NOT_ALLOWED:
        hint = "allow org.freedesktop.systemd1.manage-units to this user by a polkit rule"
        return ActuatorError(f"systemd does not allow {said}; {hint}", retry_after_s=_NOT_ALLOWED_LATER_S)
    if name.startswith(f"{_SYSTEMD}.") or name == "org.freedesktop.DBus.Error.InvalidArgs":
        return UnitError(f"systemd refuses {said}")
    return ActuatorError(f"systemd cannot be asked for {said}")
