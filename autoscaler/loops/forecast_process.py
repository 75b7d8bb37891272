"""The daemon's end of the process that forecasts: start it, ask it, end it, and say what became of it."""

from __future__ import annotations

import asyncio
import os
import signal
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
"""From closing the pipe to being gone."""
_TAIL_BYTES = 2000


class ForecastProcessError(Exception):
    """The process did not do as asked, and must be ended; the text says what it did."""


class ForecastProcess:
    """One life of it. One question at a time."""

    def __init__(self, setup: Setup, command: Sequence[str] = COMMAND) -> None:
        self._setup = setup
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._complaints: asyncio.Task[None] | None = None
        self._tail = b""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> Answer:
        """Until it is ready. Raises ForecastProcessError."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=_environment(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            raise ForecastProcessError(f"cannot be started: {error}") from None
        self._complaints = asyncio.create_task(self._listen(), name="complaints of the process that forecasts")
        return await self._exchange(self._setup.pack(), _START_S)

    async def ask(self, ask: Ask, limit_s: float) -> Answer:
        """Raises ForecastProcessError, also when it takes longer than `limit_s`."""
        return await self._exchange(ask.pack(), limit_s)

    async def close(self) -> None:
        """End it now, whatever it does, and wait until it is gone."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if self._complaints is not None:
            await self._complaints

    async def _exchange(self, message: bytes, limit_s: float) -> Answer:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(limit_s):
                process.stdin.write(message)
                await process.stdin.drain()
                head, body = sizes_of(await process.stdout.readexactly(SIZES.size))
                text = await process.stdout.readexactly(head)
                return Answer.unpack(text, await process.stdout.readexactly(body))
        except TimeoutError:
            raise ForecastProcessError(f"did not answer within {limit_s:g} s") from None
        except WireError as error:
            raise ForecastProcessError(str(error)) from None
        except (EOFError, OSError, RuntimeError):
            # RuntimeError: what uvloop says of a pipe that is closed.
            raise ForecastProcessError(await self._end()) from None

    async def _end(self) -> str:
        """How it ended, once it has closed the pipe."""
        assert self._process is not None
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                code = await self._process.wait()
        except TimeoutError:
            await self.close()
            return "closed the pipe"
        if self._complaints is not None:
            await self._complaints
        lines = self._tail.decode(errors="replace").strip().splitlines()
        said = f": {lines[-1][:300]}" if lines else ""
        return (f"ended with {_signal(-code)}" if code < 0 else f"ended with exit code {code}") + said

    async def _listen(self) -> None:
        """Keep the end of what it complains of, so that the pipe never fills."""
        assert self._process is not None
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(4096):
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
