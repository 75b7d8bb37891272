"""Replicas that are processes of this machine, each in a session of its own.

They outlive this process: each is recorded in the state directory and found again by pid and start time. All progress
is made in `observe` and `apply`; there is no task in the background.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoscaler.action import Action, GiveUp, ScaleUp, Stop
from autoscaler.actuator import Observation, Observed
from autoscaler.fleet import Phase
from autoscaler.local import logs, procfs
from autoscaler.local.aside import in_thread
from autoscaler.local.records import Record
from autoscaler.local.site import Site
from autoscaler.policy.actuators import ProcessSettings, fill
from lb.feeds.http import ProbeClient

log = logging.getLogger(__name__)

_SHELL = "/bin/sh"
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID")
"""What systemd tells this process alone; a replica that answered for it would keep a dead balancer alive."""

_LAST_THREADS_S = 0.2
"""For the threads of a process that was killed to end: on a busy machine a while after the first of them."""


@dataclass(slots=True)
class _Look:
    """One pass over the records."""

    settled: list[Observed] = field(default_factory=list)
    starting: list[Record] = field(default_factory=list)
    """They run and have to be asked whether they are ready."""
    complete: bool = True
    full: frozenset[str] = frozenset()


class ProcessActuator:
    """See the module. `directory`: where relative paths of the settings begin. `environ`: what replicas inherit."""

    def __init__(self, settings: ProcessSettings, site: Site, directory: Path, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._site = site
        self._directory = (directory / (settings.directory or ".")).absolute()
        self._environ = {name: value for name, value in environ.items() if name not in _OURS}
        # Each probe on a connection of its own: a server that was told to end still answers on those it has.
        self._client = ProbeClient(fresh=True)
        self._opened = False

    async def observe(self) -> Observation:
        """All recorded replicas. Ends what is told to end and did not, notes what ended by itself."""
        look = await in_thread(self._look)
        ready = await self._site.ready(await self._probes(), look.starting)
        now = self._site.clock.monotonic()
        replicas = look.settled
        for record in look.starting:
            if record.name in ready:
                replicas.append(self._site.observed(self._site.update(record, ready_at=now), Phase.READY))
            else:
                replicas.append(self._site.observed(record, Phase.STARTING))
        replicas.sort(key=lambda one: one.fact.id)
        return Observation(now, tuple(replicas), look.complete, full=look.full)

    async def apply(self, action: Action) -> None:
        """Start, or begin to end; a drain is the balancer's matter."""
        match action:
            case ScaleUp():
                for name in action.start_ids:
                    await in_thread(self._start, name, action.kind)
            case Stop():
                await in_thread(self._stop, action.replica)
            case GiveUp():
                record = await in_thread(self._site.find, action.replica or action.start_id)
                if record is not None and not await self._is_ready(record):
                    await in_thread(self._stop, record.name)
            case _:
                pass

    async def close(self) -> None:
        """The replicas run on."""
        await self._client.close()
        self._opened = False

    # ------------------------------------------------------------------ looking

    def _look(self) -> _Look:
        records, unreadable = self._site.records.load(self._site.pool.name)
        for path in unreadable:
            log.error("pool %s: %s cannot be read; a replica may run that nobody knows", self._site.pool.name, path)
        look = _Look(complete=not unreadable)
        for record in records:
            logs.cut(self._site.records.path(record, ".log"), self._settings.log_bytes)
            seen = self._one(record)
            if isinstance(seen, Record):
                look.starting.append(seen)
            elif seen is not None:
                look.settled.append(seen)
        look.full = self._site.full()
        return look

    def _one(self, record: Record) -> Observed | Record | None:
        """What a record stands for now; the record itself while it starts, None when it is gone."""
        if record.pid is None and record.failed_at is None:
            record = self._adopt(record)
        if record.stopping_at is not None:
            self._end(record)
            if self._remains(record):
                return self._site.observed(record, Phase.STOPPING)
            self._forget(record)
            return None
        if record.failed_at is None and not _runs(record):
            record = self._failed(record)
        if record.failed_at is not None:
            return self._site.observed(record, Phase.FAILED)
        return record if record.ready_at is None else self._site.observed(record, Phase.READY)

    def _adopt(self, record: Record) -> Record:
        """Find the process of a start after which nobody noted the pid, as somebody ended in between."""
        found = procfs.marked(str(self._site.records.path(record, ".json")))
        if found is None:
            return self._fail(record, "its start was interrupted before there was a process")
        return self._site.update(record, pid=found.pid, ticks=found.ticks, started_at=record.asked_at)

    def _failed(self, record: Record) -> Record:
        assert record.pid is not None
        after_s = self._site.clock.monotonic() - record.asked_at
        path = self._site.records.path(record, ".log")
        how = f"{procfs.ended_how(procfs.reap(record.pid, _LAST_THREADS_S))} {after_s:.0f} s after it was asked for"
        return self._fail(record, f"{how}; {path} ends with: {logs.tail(path)}")

    def _fail(self, record: Record, why: str) -> Record:
        log.warning("pool %s: replica %s %s", record.pool, record.name, why)
        return self._site.update(record, failed_at=self._site.clock.monotonic(), failure=why)

    # ------------------------------------------------------------------ starting

    def _start(self, name: str, kind: str) -> None:
        record = self._site.claim(name, kind)
        if record is None:
            return
        try:
            pid = self._spawn(record)
        except OSError as error:
            self._fail(record, f"could not be started: {error.strerror}")
            return
        found = procfs.stat(pid)
        now = self._site.clock.monotonic()
        self._site.update(record, pid=pid, ticks=0 if found is None else found.ticks, started_at=now)
        log.info(
            "pool %s: started %s on port %d, GPUs %s", record.pool, name, record.port, ",".join(record.gpus) or "-"
        )

    def _spawn(self, record: Record) -> int:
        """Begin a session with the command in it.

        Not by asyncio or subprocess: both feel responsible for their children, and asyncio kills them when it closes.
        """
        gpus = ",".join(record.gpus)
        values = {
            "name": record.name, "pool": record.pool, "kind": record.kind, "port": str(record.port), "gpus": gpus,
        }  # fmt: skip
        path = self._site.records.path(record, ".log")
        environ = {
            **self._environ,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of nvidia-smi and NVML; CUDA's own puts the fastest first
            "CUDA_VISIBLE_DEVICES": gpus,
            **{name: fill(text, values) for name, text in self._settings.environment.items()},
            procfs.MARK: str(self._site.records.path(record, ".json")),
        }
        # The shell changes directory, and says in the log what is wrong with the command; it reads none of the words.
        command = [_SHELL, "-c", 'cd -- "$0" && exec "$@"', str(self._directory)]
        return os.posix_spawn(
            _SHELL,
            [*command, *(fill(word, values) for word in self._settings.command)],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP],  # Python ignores the first two
        )

    async def _is_ready(self, record: Record) -> bool:
        if record.ready_at is not None or record.failed_at is not None or record.stopping_at is not None:
            return record.ready_at is not None and record.failed_at is None
        return record.name in await self._site.ready(await self._probes(), [record])

    async def _probes(self) -> ProbeClient:
        if not self._opened:
            await self._client.open()
            self._opened = True
        return self._client

    # ------------------------------------------------------------------ ending

    def _stop(self, name: str) -> None:
        record = self._site.find(name)
        if record is None:
            return
        if record.pid is None and record.failed_at is None:
            record = self._adopt(record)
        if record.stopping_at is None:
            record = self._site.update(record, stopping_at=self._site.clock.monotonic())
            log.info("pool %s: ending %s", record.pool, name)
            if record.pid is not None and record.ticks is not None:
                # Only the first process: servers end their workers themselves, in the order that they need.
                procfs.send(record.pid, record.ticks, signal.SIGTERM)
        self._end(record)
        if not self._remains(record):
            self._forget(record)

    def _end(self, record: Record) -> None:
        """Go on with what began by SIGTERM: those left behind get one too, and after the grace SIGKILL ends all."""
        assert record.stopping_at is not None
        if record.pid is None or record.ticks is None:
            return
        over = self._site.clock.monotonic() >= record.stopping_at + self._settings.grace_s
        if over or not _runs(record):
            for member in procfs.members(record.pid, record.ticks):
                procfs.send(member.pid, member.ticks, signal.SIGKILL if over else signal.SIGTERM)

    def _remains(self, record: Record) -> bool:
        """Whether anything of it lives. A worker that outlives its server still has the memory of a GPU."""
        if record.pid is None or record.ticks is None:
            return False
        if _runs(record):
            return True
        procfs.reap(record.pid)
        return bool(procfs.members(record.pid, record.ticks))

    def _forget(self, record: Record) -> None:
        self._site.records.remove(record)
        logs.prune(self._site.records.path(record, ".log").parent)


def _runs(record: Record) -> bool:
    return record.pid is not None and record.ticks is not None and procfs.lives(record.pid, record.ticks)
