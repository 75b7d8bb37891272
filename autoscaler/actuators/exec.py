"""A command of the operator's starts and ends replicas. It is run anew for each question and each action."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import msgspec

from autoscaler.action import Action, GiveUp
from autoscaler.actuator import ActuatorError, Observation
from autoscaler.policy.actuators import ExecSettings
from autoscaler.wire import ANSWER_BYTES, action_document, found_ready, read_observation, verb
from lb.clock import Clock

log = logging.getLogger(__name__)

_TEMPORARY = os.EX_TEMPFAIL
"""Exit status 75 (sysexits.h): not now, but later."""
_LATER_S = 30.0
"""How much later: two ticks."""
_KILL_S = 1.0
_SHOWN = 500
"""Bytes of standard error in a message."""


class ExecActuator:
    """See the module. `directory`: where relative paths of the settings begin."""

    def __init__(
        self, pool: str, settings: ExecSettings, directory: Path, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._directory = directory / (settings.directory or ".")
        self._environ = {**environ, **settings.environment, "TIDEGATE_POOL": pool}
        self._clock = clock

    async def observe(self) -> Observation:
        """What `COMMAND observe` prints."""
        answer = await self._run("observe", {"pool": self._pool})
        seen, faults = read_observation(answer, self._clock.monotonic(), self._what("observe"))
        for fault in faults:
            log.warning("pool %s: %s said what cannot be read: %s", self._pool, self._what("observe"), fault)
        return seen

    async def apply(self, action: Action) -> None:
        """Run `COMMAND scale_up` and the like; status 0 says that it is done or begun."""
        if isinstance(action, GiveUp) and found_ready(action, await self.observe()):
            return
        await self._run(verb(action), action_document(action))

    async def close(self) -> None:
        """Nothing is held."""

    async def _run(self, word: str, document: object) -> bytes:
        """Standard output of one run. Raises ActuatorError for any other exit status than 0, and at the deadline.

        By files and not by pipes: a pipe that a replica inherited would keep us waiting, and kill the replica later.
        """
        what = self._what(word)
        with TemporaryFile() as message, TemporaryFile() as output, TemporaryFile() as errors:
            message.write(msgspec.json.encode(document))
            message.seek(0)
            status = await self._status(what, word, message, output, errors)
            if status != 0:
                later_s = _LATER_S if status == _TEMPORARY else None
                said = _tail(errors) or "it said nothing"
                raise ActuatorError(f"{what} ended with status {status}: {said}", retry_after_s=later_s)
            output.seek(0)
            answer = output.read(ANSWER_BYTES + 1)
        if len(answer) > ANSWER_BYTES:
            raise ActuatorError(f"{what} printed more than {ANSWER_BYTES >> 20} MiB")
        return answer

    async def _status(self, what: str, word: str, *files: IO[bytes]) -> int:
        stdin, stdout, stderr = files
        try:
            process = await asyncio.create_subprocess_exec(
                *self._settings.command,
                word,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=self._directory,
                env=self._environ,
                start_new_session=True,
            )
        except OSError as error:
            where = error.filename or self._directory
            raise ActuatorError(f"{what} cannot be run: {error.strerror} ({where})") from None
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await process.wait()
        except TimeoutError:
            raise ActuatorError(f"{what} did not end within {self._settings.timeout_s:g} s and was killed") from None
        finally:
            await _kill(process)

    def _what(self, word: str) -> str:
        return f"{Path(self._settings.command[0]).name} {word}"


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End a run that took too long, with its own children."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            os.killpg(process.pid, signal.SIGKILL)
            # One that hangs in the kernel is left to it.
            await asyncio.wait_for(process.wait(), _KILL_S)


def _tail(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _SHOWN))
    return file.read().decode(errors="replace").strip()
