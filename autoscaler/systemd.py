"""What systemd and a daemon say to each other: state by datagram, listening sockets by inheritance.

Both protocols are a few lines (sd_notify(3), sd_listen_fds(3)), so there is no library.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_FIRST_FD = 3
"""SD_LISTEN_FDS_START."""


class Notifier:
    """Sends state to the service manager; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = ("\0" + path[1:]) if path.startswith("@") else path
        self.watchdog_s = _watchdog_s(environ)
        """Within this time systemd wants a sign of life; None: it does not watch."""

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, monotonic_s: float) -> None:
        """Must be followed by `ready`. systemd compares the instant, so that an old READY does not end a new reload."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic_s * 1e6)}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            # A manager that does not listen is no reason to stop serving.
            pass


def inherited_sockets(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """Listening sockets passed by socket activation, in the unit's order; none if they are not meant for us."""
    if environ.get("LISTEN_PID") != str(pid):
        return []
    count = environ.get("LISTEN_FDS", "")
    sockets = []
    for fd in range(_FIRST_FD, _FIRST_FD + (int(count) if count.isdigit() else 0)):
        os.set_inheritable(fd, False)
        inherited = socket.socket(fileno=fd)
        inherited.setblocking(False)
        sockets.append(inherited)
    return sockets


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    meant_for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 if microseconds.isdigit() and int(microseconds) and meant_for_us else None
