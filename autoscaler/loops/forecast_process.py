"""The daemon's end of the process that forecasts: start it, ask it, end it, and say what became of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from autoscaler.forecast_wire import SIZES, Answer, Ask, Setup, WireError, sizes_of

COMMAND = (sys.executable, "-P", "-m", "autoscaler.forecast_worker")
"""`-P`: what lies in the working directory is no part of it."""
_ROOT = Path(__file__).parents[2]
_START_S = 60.0
"""To load numpy and the rest: two seconds, on a busy machine ten."""
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONTZPATH", "TZ")
"""Of the environment. The rest may hold secrets, and systemd's sockets are not for it."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""One each: requests have the other cores, and sums come out the same on every machine."""
_LAST_WORDS_S = 2.0
"""From closing the socket to being gone."""
_TAIL_BYTES = 2000


class ForecastProcessError(Exception):
    """The process did not do as asked, and must be ended; the text says what it did."""


class ForecastProcess:
    """One life of it. One question at a time."""

    def __init__(self, setup: Setup, command: Sequence[str] = COMMAND) -> None:
        self._setup = setup
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader
        self._writers: list[asyncio.StreamWriter] = []
        """Of questions, and of what it says besides, which is only read."""
        self._complaints: asyncio.Task[None] | None = None
        self._tail = b""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> Answer:
        """Until it is ready. Raises ForecastProcessError."""
        try:
            questions, complaints = self._spawn()
        except OSError as error:
            raise ForecastProcessError(f"cannot be started: {error}") from None
        self._reader, writer = await asyncio.open_unix_connection(sock=questions)
        listened, other = await asyncio.open_unix_connection(sock=complaints)
        self._writers = [writer, other]
        self._complaints = asyncio.create_task(self._listen(listened), name="complaints of the process that forecasts")
        return await self._exchange(self._setup.pack(), _START_S)

    def _spawn(self) -> tuple[socket.socket, socket.socket]:
        """Our ends of what it answers on (its standard input, both ways) and of what it says besides.

        Not the event loop's own way, as uvloop forks, which takes the longer the more memory the daemon has; this one
        waits for the new program to be loaded and copies nothing.
        """
        questions, theirs = socket.socketpair()
        complaints, mouth = socket.socketpair()
        try:
            with theirs, mouth:
                self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                    self._command,
                    env=_environment(),
                    stdin=theirs.fileno(),
                    stdout=mouth.fileno(),
                    stderr=mouth.fileno(),
                )
        except OSError:
            questions.close()
            complaints.close()
            raise
        return questions, complaints

    async def ask(self, ask: Ask, limit_s: float) -> Answer:
        """Raises ForecastProcessError, also when it takes longer than `limit_s`."""
        return await self._exchange(ask.pack(), limit_s)

    async def close(self) -> None:
        """End it now, whatever it does, and wait until it is gone."""
        if self._process is None:
            return
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        if self._complaints is not None:
            await self._complaints
        for writer in self._writers:
            writer.close()

    async def _exchange(self, message: bytes, limit_s: float) -> Answer:
        writer = self._writers[0]
        try:
            async with asyncio.timeout(limit_s):
                writer.write(message)
                await writer.drain()
                head, body = sizes_of(await self._reader.readexactly(SIZES.size))
                text = await self._reader.readexactly(head)
                return Answer.unpack(text, await self._reader.readexactly(body))
        except TimeoutError:
            raise ForecastProcessError(f"did not answer within {limit_s:g} s") from None
        except WireError as error:
            raise ForecastProcessError(str(error)) from None
        except (EOFError, OSError, RuntimeError):
            # RuntimeError: what uvloop says of a socket that is closed.
            raise ForecastProcessError(await self._end()) from None

    async def _end(self) -> str:
        """How it ended, once it has closed the socket."""
        assert self._process is not None
        try:
            code = await asyncio.to_thread(self._process.wait, _LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            return "closed the socket"
        if self._complaints is not None:
            await self._complaints
        lines = self._tail.decode(errors="replace").strip().splitlines()
        said = f": {lines[-1][:300]}" if lines else ""
        return (f"ended with {_signal(-code)}" if code < 0 else f"ended with exit code {code}") + said

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Keep the end of what it says, so that it never waits for a listener."""
        with suppress(OSError):
            while chunk := await reader.read(4096):
                self._tail = (self._tail + chunk)[-_TAIL_BYTES:]


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONPATH": path, **dict.fromkeys(_THREADS, "1")}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
