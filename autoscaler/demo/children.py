"""The processes of the demo: the daemon, and the replicas that it starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from autoscaler.demo.client import exchange, split_address
from autoscaler.demo.policy import POOL, STATE
from autoscaler.errors import StartError
from autoscaler.local.records import Records

_START_S = 20.0
"""A Python process with all imports takes about a second; a loaded machine some."""
_END_S = 5.0
"""After SIGTERM; then SIGKILL, as nothing of value runs in a demo."""


class Children:
    """Subprocesses of this interpreter, in sessions of their own so that Ctrl-C reaches them in the right order."""

    def __init__(self) -> None:
        self._processes: list[asyncio.subprocess.Process] = []
        # Kept after the end: it is where a failure can be read.
        self._log = Path(tempfile.mkdtemp(prefix="tidegate-demo-")) / "tidegate.log"

    @property
    def log(self) -> Path:
        """What the balancer writes to standard error."""
        return self._log

    @property
    def directory(self) -> Path:
        """A place of the demo's own."""
        return self._log.parent

    async def start_front(self, admin: str, backends: Sequence[str], listen: str) -> asyncio.subprocess.Process:
        """`tidegate lb` before somebody's own replicas; returns when it is ready."""
        named = [part for url in backends for part in ("--backend", url)]
        return await self._ready(admin, ["lb", "--listen", listen, "--admin", admin, *named])

    async def start_daemon(self, admin: str, policy: Path) -> asyncio.subprocess.Process:
        """`tidegate run`; returns when it is ready."""
        return await self._ready(admin, ["run", "--policy", str(policy)])

    async def _ready(self, admin: str, arguments: Sequence[str]) -> asyncio.subprocess.Process:
        process = await self._spawn(arguments, asyncio.subprocess.DEVNULL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                while process.returncode is None:
                    with contextlib.suppress(OSError, ValueError, TimeoutError):
                        if (await exchange(admin, "GET", "/readyz", timeout_s=1.0)).status == 200:
                            return process
                    await asyncio.sleep(0.1)
        raise StartError(f"the balancer did not become ready: {self._tail()}")

    async def stop(self) -> None:
        """The balancer first, so that nothing is asked of a replica that is gone; then those, which outlive it."""
        for process in reversed(self._processes):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(process.wait(), _END_S)
                except TimeoutError:
                    process.kill()
                    await process.wait()
        await asyncio.to_thread(_end_replicas, self.directory / STATE / "replicas")

    async def _spawn(self, arguments: Sequence[str], stdout: int) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "autoscaler", *arguments, stdout=stdout, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        return process

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"{' / '.join(lines[-3:]) or 'it said nothing'} (all of it: {self._log})"


def _end_replicas(state: Path) -> None:
    """End the simulated replicas that the balancer has left running, as it should."""
    records, _ = Records(state).load(POOL) if state.is_dir() else ([], [])
    for record in records:
        if record.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(record.pid, signal.SIGKILL)


def free_address(wanted: str, *, strict: bool) -> str:
    """`wanted` if it can be had; otherwise, unless `strict`, the same host with a free port. Port 0 is any free one."""
    host, port = split_address(wanted)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (port, 0):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, candidate))
            except OSError as error:
                if strict or candidate != port:
                    raise StartError(f"cannot listen on {wanted}: {error.strerror}") from None
                continue
            shown = f"[{host}]" if ":" in host else host
            return f"{shown}:{sock.getsockname()[1]}"
    raise StartError(f"cannot listen on {wanted}")
