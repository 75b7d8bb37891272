"""Processes of a benchmark: what they cost, and the simulated replicas among them."""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def raise_fd_limit(wanted: int = 65_536) -> int:
    """Raise the limit of file descriptors as far as allowed, for this process and what it starts; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for target in ((max(wanted, hard), max(wanted, hard)), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, target)
            return target[0]
        except (OSError, ValueError):
            continue
    return soft


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo.extend(children.get(one, []))
    return found


def cpu_s(pid: int) -> float:
    """User and system CPU seconds of a process tree so far, from /proc/<pid>/stat (children that ended included)."""
    total = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(value) for value in fields[11:15])
    return total / _TICKS


def rss_bytes(pid: int) -> int:
    """Resident memory of a process tree."""
    total = 0
    for one in tree(pid):
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE_BYTES
        except OSError:
            continue
    return total


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    sockets = []
    for _ in range(count):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sockets.append(sock)
    ports: list[int] = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def http_status(address: str, path: str) -> int | None:
    """Status of a GET; None without an answer."""
    connection = http.client.HTTPConnection(address, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def http_json(address: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object from a control or admin path. Raises RuntimeError on any other answer."""
    connection = http.client.HTTPConnection(address, timeout=10.0)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        raw = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{method} http://{address}{path}: {answer.status} {raw[:200]!r}")
    value: dict[str, Any] = json.loads(raw)
    return value


class Mocks:
    """Simulated replicas: each group of options is one process with `count` replicas."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def start(self, count: int, *options: str, nice: int = 0) -> list[str]:
        """Returns `host:port` of each replica of one more process."""
        process = subprocess.Popen(
            [sys.executable, "-m", "autoscaler", "mock-runtime", "--port", "0", "--count", str(count), *options],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=(lambda: os.nice(nice) and None) if nice else None,
        )
        self._processes.append(process)
        assert process.stdout is not None
        addresses = []
        for _ in range(count):
            line = process.stdout.readline()
            if "http://" not in line:
                raise RuntimeError("a simulated replica did not start")
            addresses.append(line.strip().rpartition("//")[2])
        return addresses

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._processes.clear()


def urls(addresses: Sequence[str]) -> list[str]:
    return [f"http://{address}" for address in addresses]
