"""The processes of the demo: started in order, ended in the opposite one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from autoscaler.demo.client import exchange, split_address
from autoscaler.errors import StartError

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

    async def start_mock(self, *options: str) -> str:
        """A simulated replica on a free port; returns its URL."""
        process = await self._spawn(["mock-runtime", "--port", "0", *options], asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_S):
                line = (await process.stdout.readline()).decode()
        except TimeoutError:
            line = ""
        _, _, url = line.strip().partition("listening on ")
        if not url:
            raise StartError(f"a simulated replica did not start: {self._tail()}")
        return url

    async def start_balancer(self, listen: str, admin: str, backends: Sequence[str]) -> asyncio.subprocess.Process:
        """`tidegate lb` before them; returns when it is ready."""
        named = [part for url in backends for part in ("--backend", url)]
        process = await self._spawn(["lb", "--listen", listen, "--admin", admin, *named], asyncio.subprocess.DEVNULL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                while process.returncode is None:
                    with contextlib.suppress(OSError, ValueError, TimeoutError):
                        if (await exchange(admin, "GET", "/readyz", timeout_s=1.0)).status == 200:
                            return process
                    await asyncio.sleep(0.1)
        raise StartError(f"the balancer did not become ready: {self._tail()}")

    async def stop(self) -> None:
        """The balancer first, so that nothing is asked of a replica that is gone."""
        for process in reversed(self._processes):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(process.wait(), _END_S)
                except TimeoutError:
                    process.kill()
                    await process.wait()

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
