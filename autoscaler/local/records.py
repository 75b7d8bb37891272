"""What is remembered of the replicas on this machine, over restarts: one small file for each.

`STATE/POOL/NAME.json`, written whole and put in place by renaming, so that no reader sees half of one. All pools share
`STATE`, because they share ports and GPUs.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from autoscaler.actuator import ActuatorError

_LOCK_WAIT_S = 2.0
"""The lock is held for milliseconds; who has not got it by now waits for somebody who was stopped in the middle."""
_LOCK_POLL_S = 0.01
_LOCK_RETRY_S = 1.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica. Instants are of the monotonic clock, which all processes of one boot share."""

    name: str
    pool: str
    kind: str
    port: int
    boot: str
    """Boot of the machine in which it was started; after another boot nothing of it is left."""
    asked_at: float
    gpus: tuple[str, ...] = ()
    """As CUDA_VISIBLE_DEVICES names them."""
    uuids: tuple[str, ...] = ()
    """The same cards by UUID, as far as known."""
    pid: int | None = None
    ticks: int | None = None
    """Start time of `pid` in clock ticks since boot: pid and ticks together never come again."""
    started_at: float | None = None
    ready_at: float | None = None
    stopping_at: float | None = None
    """Since when it is told to end."""
    failed_at: float | None = None
    failure: str = ""


class Records:
    """The files of all pools below one directory. Blocking, for short."""

    def __init__(self, directory: Path) -> None:
        """`directory` is made when something is written."""
        self._directory = directory
        self.boot = _BOOT_ID.read_text().strip()

    def load(self, pool: str) -> tuple[list[Record], list[Path]]:
        """The pool's replicas by name, and files that cannot be read. Files of an earlier boot are removed.

        Raises ActuatorError if the directory cannot be read.
        """
        records: list[Record] = []
        unreadable: list[Path] = []
        for path in self._files(self._directory / pool):
            record = _read(path)
            if record is None:
                unreadable.append(path)
            elif record.boot != self.boot:
                path.unlink(missing_ok=True)
            else:
                records.append(record)
        return records, unreadable

    def claims(self) -> tuple[set[int], set[str]]:
        """Ports, and GPUs (by each of their names), that the replicas of all pools hold."""
        ports: set[int] = set()
        gpus: set[str] = set()
        if not self._directory.is_dir():
            return ports, gpus
        for pool in self._directory.iterdir():
            for record in self.load(pool.name)[0] if pool.is_dir() else ():
                if record.failed_at is None or record.pid is not None:
                    ports.add(record.port)
                    gpus.update(record.gpus, record.uuids)
        return ports, gpus

    def elsewhere(self, pool: str) -> set[str]:
        """Names of the replicas of all other pools."""
        if not self._directory.is_dir():
            return set()
        folders = [folder for folder in self._directory.iterdir() if folder.is_dir() and folder.name != pool]
        return {path.stem for folder in folders for path in self._files(folder)}

    def save(self, record: Record) -> None:
        """Write it, in place of what was known. Raises ActuatorError."""
        path = self.path(record, ".json")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(msgspec.json.encode(record))
            temporary.replace(path)
        except OSError as error:
            raise ActuatorError(f"cannot write {path}: {error.strerror}; replicas need a state directory") from None

    def remove(self, record: Record) -> None:
        """Forget it."""
        self.environment(record).unlink(missing_ok=True)
        self.path(record, ".json").unlink(missing_ok=True)

    def path(self, record: Record, suffix: str) -> Path:
        """A file that belongs to it: `.json`, `.log`. Names were checked before there was a record."""
        return self._directory / record.pool / f"{record.name}{suffix}"

    def environment(self, record: Record) -> Path:
        """The file that tells a unit its port and GPUs; in no pool's folder, as units know the name alone."""
        return self._directory / f"{record.name}.env"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Nobody else on this machine claims ports or GPUs meanwhile. ActuatorError if somebody does for too long."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._directory / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ActuatorError(f"cannot write to {self._directory}: {error.strerror}") from None
        try:
            _lock(fd, self._directory)
            yield
        finally:
            os.close(fd)

    def _files(self, folder: Path) -> list[Path]:
        try:
            return sorted(path for path in folder.iterdir() if path.suffix == ".json" and path.name[0] != ".")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ActuatorError(f"cannot read {folder}, where the replicas are listed: {error.strerror}") from None


def _lock(fd: int, directory: Path) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            # Not the call that waits: it could not be given up.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                reason = f"another process holds {directory}/.lock for {_LOCK_WAIT_S:g} s"
                raise ActuatorError(reason, retry_after_s=_LOCK_RETRY_S) from None
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _read(path: Path) -> Record | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None
    # A file that was copied to another name would be a second replica with the same process.
    return record if (record.name, record.pool) == (path.stem, path.parent.name) else None
