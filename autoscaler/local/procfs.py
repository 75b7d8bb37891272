"""Processes as the kernel knows them: which one is meant, whether it lives, who belongs to it.

A process is meant by pid and start time together. Pids come again; with the start time they do not, so that nobody is
ever signalled who merely has the number of somebody that we knew.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
MARK = "TIDEGATE_REPLICA"
"""Variable that every replica's process has: its record's file, by which it is found again if nobody noted its pid."""


_LOOK_S = 0.005
"""Threads end within microseconds of a free core."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One line of /proc/PID/stat (proc(5)), the part that matters here."""

    pid: int
    state: str
    session: int
    ticks: int
    """Start time, in clock ticks since boot."""

    @property
    def alive(self) -> bool:
        return self.state not in "ZXx"


def stat(pid: int) -> Stat | None:
    """None: there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        # The name in parentheses may hold anything, parentheses included.
        fields = text[text.rindex(")") + 2 :].split()
    except (OSError, ValueError):
        return None
    return Stat(pid, state=fields[0], session=int(fields[3]), ticks=int(fields[19]))


def lives(pid: int, ticks: int) -> bool:
    """Whether this very process runs. A zombie does not."""
    found = stat(pid)
    return found is not None and found.ticks == ticks and found.alive


def reap(pid: int, patience_s: float = 0.0) -> int | None:
    """The wait status of a child of ours that ended; None: it runs, or it is nobody's that we could ask.

    The first thread of a process is a zombie before the others have ended, and only then the status can be had:
    `patience_s` is for that.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if ended == pid:
            return status
        if time.monotonic() >= until:
            return None
        time.sleep(_LOOK_S)


def members(session: int, ticks: int) -> list[Stat]:
    """Processes that live in the session that process (`session`, `ticks`) began, itself included.

    The kernel gives no pid anew while a session has its number. So if the number belongs to another process now, the
    session has ended, and whoever is in one with that number is somebody else's.
    """
    leader = stat(session)
    if leader is not None and leader.ticks != ticks:
        return []
    found = (stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [one for one in found if one is not None and one.session == session and one.alive and one.ticks >= ticks]


def send(pid: int, ticks: int, number: signal.Signals) -> bool:
    """Signal this very process; False: it is gone. The descriptor keeps meaning it while we look at its start time."""
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return False
    try:
        if not lives(pid, ticks):
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def marked(mark: str) -> Stat | None:
    """The session leader whose environment has this mark."""
    wanted = f"{MARK}={mark}".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables:
            found = stat(int(entry.name))
            if found is not None and found.alive and found.session == found.pid:
                return found
    return None


def ended_how(status: int | None) -> str:
    """A wait status in words."""
    if status is None:
        return "ended (how is not known: it was started by an earlier process, or a thread of it hangs)"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended by itself with exit status {code}"
    hint = ", perhaps by the kernel for want of memory" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code}{hint}"
