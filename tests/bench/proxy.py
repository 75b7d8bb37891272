"""What a benchmark puts its load on: a proxy before given replicas, started as the process that operators run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.bench.processes import http_status

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate" / "bench"
"""Peers that are installed for the benchmarks live here, outside the project's environment."""
READY_S = 60.0
STOP_S = 5.0


class MissingPeerError(Exception):
    """A peer is not installed and cannot be; the message says how to get it."""


class Proxy(Protocol):
    """How one product is run."""

    name: str
    """In the tables, with its policy."""

    def prepare(self) -> None:
        """Install what is missing. Raises MissingPeerError."""

    def command(self, port: int, spare_port: int, backends: Sequence[str], folder: Path) -> list[str]:
        """Command line for listening on 127.0.0.1:port; `spare_port` for metrics or admin, `folder` for its files."""

    @property
    def ready_path(self) -> str:
        """A path that answers 200 when requests are taken."""


@dataclass
class Running:
    """A proxy that was started."""

    proxy: Proxy
    port: int
    admin_port: int
    process: subprocess.Popen[bytes]
    folder: Path = field(default_factory=Path)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"127.0.0.1:{self.admin_port}"

    def wait_ready(self) -> None:
        """Raises RuntimeError with the end of its log when it does not come up."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if http_status(self.address, self.proxy.ready_path) == 200:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.proxy.name} did not become ready:\n{self.log_tail()}")

    def log_tail(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """End the process and its children."""
        for how, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            try:
                os.killpg(self.process.pid, how)
            except ProcessLookupError:
                break
            try:
                self.process.wait(patience_s)
                break
            except subprocess.TimeoutExpired:
                continue
        shutil.rmtree(self.folder, ignore_errors=True)


def start(proxy: Proxy, port: int, admin_port: int, backends: Sequence[str], folder: Path) -> Running:
    """Start it in a session of its own and wait until it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            proxy.command(port, admin_port, backends, folder), stdout=log, stderr=log, start_new_session=True
        )
    running = Running(proxy, port, admin_port, process, folder)
    try:
        running.wait_ready()
    except RuntimeError:
        running.stop()
        raise
    return running


def need_debian(program: str) -> None:
    """Make sure that a program of that Debian package is there; install it if this is root on Debian."""
    if shutil.which(program):
        return
    hint = f"{program} is not installed; say: apt-get install {program}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise MissingPeerError(hint)
    sys.stderr.write(f"installing {program} with apt-get\n")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update"], check=False, **quiet)  # type: ignore[call-overload]
    done = subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", program], check=False, **quiet)  # type: ignore[call-overload]
    if done.returncode or not shutil.which(program):
        raise MissingPeerError(hint)


def need_router(distribution: str) -> Path:
    """Path of a router's console script, installed from the package index into an environment of its own."""
    folder = CACHE / "routers"
    script = folder / "bin" / distribution
    if script.exists():
        return script
    sys.stderr.write(f"installing {distribution} into {folder} (once)\n")
    try:
        if not (folder / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", distribution], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingPeerError(f"{distribution} could not be installed into {folder}: {error}") from None
    return script
