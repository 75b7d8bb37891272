"""Processes on free ports, with a log each, that are gone when the test is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path

import aiohttp


def free_port() -> int:
    """A port that nobody listens on now; the kernel does not hand it out again soon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A started program that listens on `port`."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str], port: int) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.metrics: str | None = None
        """Where its metrics are, if not on its port."""
        self.log = log
        self._command = [str(part) for part in command]
        self._env = dict(os.environ) | dict(env)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            return subprocess.Popen(
                self._command,
                env=self._env,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def restart(self) -> None:
        """Start again what has ended, on the same port."""
        assert self.process.poll() is not None
        self.process = self._start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone; SIGKILL to all that it has started."""
        if self.process.poll() is None:
            if number is signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)

    async def ended(self, within_s: float) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        return await asyncio.to_thread(self.process.wait, within_s)

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    async def answers(self, path: str, *, within_s: float, status: int = 200, port: int | None = None) -> None:
        """Wait until a GET is answered with `status`."""
        url = f"http://127.0.0.1:{port or self.port}{path}"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

            async def asked() -> bool:
                assert self.process.poll() is None, f"{self.name} ended:\n{self.tail()}"
                try:
                    async with session.get(url) as response:
                        return response.status == status
                except (aiohttp.ClientError, TimeoutError):
                    return False

            await eventually(asked, within_s=within_s, what=f"{self.name}: {status} on {path}", more=self.tail)


class running(AbstractContextManager[Server], AbstractAsyncContextManager[Server]):  # noqa: N801
    """A server that is killed at the end, with all that it has started; for `with` and `async with`."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, port: int, env: Mapping[str, str] | None = None
    ) -> None:
        self._start = lambda: Server(name, command, log, env or {}, port)
        self._server: Server | None = None

    def __enter__(self) -> Server:
        self._server = self._start()
        return self._server

    def __exit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.kill()

    async def __aenter__(self) -> Server:
        return self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__()


async def eventually(
    holds: Callable[[], Awaitable[object]], *, within_s: float, what: str, more: Callable[[], str] = str
) -> None:
    """Ask again until it holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    seen: object = None
    while loop.time() < deadline:
        seen = await holds()
        if seen:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}; last seen {seen!r}\n{more()}")
