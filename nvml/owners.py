"""Ties a process to what owns it: unit, pod or container, and the TCP ports it serves. Reads `/proc` only.

A shell: it reads files and remembers for a while what it has read. All parsing that decides anything is in `cgroup` and
in the functions below that take text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from nvml.cgroup import parse_cgroup
from nvml.sample import GpuProcess, Owner, OwnerKind

INIT_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h
MAX_ANCESTORS = 8  # engine worker -> engine core -> API server -> launcher; more is another program's tree
MAX_FDS = 65_536  # a process with more open files than this is not searched for sockets
_LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h
_SOCKET = re.compile(r"^socket:\[(\d+)\]$")


@dataclass(frozen=True, slots=True)
class _Known:
    owner: Owner
    ports: tuple[int, ...]
    started: int
    until: float


class OwnerResolver:
    """Looks processes up and remembers them for `refresh_s`. Not thread-safe: it belongs to the sampler's thread.

    `proc`: the host's process directory; another one where a container has it mounted elsewhere.
    """

    def __init__(self, refresh_s: float, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._refresh_s = refresh_s
        self._known: dict[int, _Known] = {}
        self._listeners: dict[str, tuple[float, dict[int, int]]] = {}
        self.sees_host = self._link(f"{self._proc}/self/ns/pid") in (INIT_PID_NAMESPACE, None)
        """Whether process ids here are the host's. If not, the driver hides processes, and a missing one proves
        nothing."""

    def attach(self, processes: Iterable[GpuProcess], now: float) -> tuple[GpuProcess, ...]:
        """The processes with owner and ports. A process that has gone since the driver listed it is left out."""
        found: list[GpuProcess] = []
        for process in processes:
            known = self._lookup(process.pid, now)
            if known is not None:
                found.append(replace(process, owner=known.owner, ports=known.ports))
            elif not self.sees_host:
                found.append(process)
        return tuple(found)

    def forget_except(self, pids: Iterable[int]) -> None:
        """Drops what is remembered of all other processes, so that memory is bounded by the processes that exist."""
        keep = set(pids)
        for pid in [pid for pid in self._known if pid not in keep]:
            del self._known[pid]
        if not self._known:
            self._listeners.clear()

    def _lookup(self, pid: int, now: float) -> _Known | None:
        stat = self._read(f"{self._proc}/{pid}/stat")
        if stat is None:
            return None
        command, _parent, started = parse_stat(stat)
        known = self._known.get(pid)
        if known is not None and known.started == started and now < known.until:
            return known
        owner = self._owner(pid, command)
        ports = self._ports(pid, now)
        known = _Known(owner, ports, started, now + self._refresh_s)
        self._known[pid] = known
        return known

    def _owner(self, pid: int, command: str) -> Owner:
        member = parse_cgroup(self._read(f"{self._proc}/{pid}/cgroup") or "")
        if member.pod_uid is not None:
            kind, name = OwnerKind.POD, f"pod:{member.pod_uid}"
        elif member.container_id is not None:
            kind, name = OwnerKind.CONTAINER, member.container_id[:12]
        elif member.unit is not None:
            kind, name = OwnerKind.SYSTEMD, member.unit
        else:
            kind, name = OwnerKind.PROCESS, command
        return Owner(kind, name, member.pod_uid, member.container_id, member.unit, command)

    def _ports(self, pid: int, now: float) -> tuple[int, ...]:
        """The ports of the process, or of its nearest ancestor that listens: engines compute in children of the API
        server."""
        current = pid
        for _ in range(MAX_ANCESTORS):
            ports = self._own_ports(current, now)
            if ports:
                return ports
            stat = self._read(f"{self._proc}/{current}/stat")
            parent = 0 if stat is None else parse_stat(stat)[1]
            if parent <= 1:
                return ()
            current = parent
        return ()

    def _own_ports(self, pid: int, now: float) -> tuple[int, ...]:
        listeners = self._listening(pid, now)
        if not listeners:
            return ()
        ports: set[int] = set()
        try:
            with os.scandir(f"{self._proc}/{pid}/fd") as entries:
                for count, entry in enumerate(entries):
                    if count >= MAX_FDS:
                        break
                    match = _SOCKET.match(self._link(entry.path) or "")
                    if match and (port := listeners.get(int(match.group(1)))) is not None:
                        ports.add(port)
        except OSError:
            return ()
        return tuple(sorted(ports))

    def _listening(self, pid: int, now: float) -> dict[int, int]:
        """Socket inode to port, for the network namespace of `pid`."""
        namespace = self._link(f"{self._proc}/{pid}/ns/net")
        if namespace is None:
            return {}
        known = self._listeners.get(namespace)
        if known is not None and now < known[0]:
            return known[1]
        found: dict[int, int] = {}
        for table in ("tcp", "tcp6"):
            try:
                with open(f"{self._proc}/{pid}/net/{table}", encoding="ascii", errors="replace") as rows:  # noqa: PTH123
                    found.update(parse_listeners(rows))
            except OSError:
                continue
        self._listeners[namespace] = (now + self._refresh_s, found)
        return found

    def _read(self, path: str) -> str | None:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - Path costs more than the read
                return file.read()
        except OSError:
            return None

    def _link(self, path: str) -> str | None:
        try:
            return os.readlink(path)  # noqa: PTH115 - as above
        except OSError:
            return None


def parse_stat(text: str) -> tuple[str, int, int]:
    """(command, parent's pid, start time in clock ticks) from `/proc/<pid>/stat`. The command may hold spaces and
    parentheses."""
    command = text[text.find("(") + 1 : text.rfind(")")]
    fields = text[text.rfind(")") + 2 :].split()
    try:
        return command, int(fields[1]), int(fields[19])
    except (IndexError, ValueError):
        return command, 0, 0


def parse_listeners(rows: Iterable[str]) -> dict[int, int]:
    """Socket inode to local port, for the listening rows of `/proc/net/tcp` or `tcp6`.

    The kernel writes all listening sockets before the first other one (`tcp_seq_start` in net/ipv4/tcp_ipv4.c), so
    reading ends there: a machine with a hundred thousand connections must not cost megabytes every ten seconds.
    """
    found: dict[int, int] = {}
    for number, row in enumerate(rows):
        if number == 0:
            continue  # the header
        fields = row.split(None, 10)
        if len(fields) < 10 or fields[3] != _LISTEN:
            break
        if fields[9].isdecimal():
            found[int(fields[9])] = int(fields[1].rpartition(":")[2], 16)
    return found
