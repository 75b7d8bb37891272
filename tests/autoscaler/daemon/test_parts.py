"""The parts around the daemon: systemd's protocols, descriptors, root tasks, sources over a reload."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoscaler import process
from autoscaler.errors import StartError
from autoscaler.process import fit_descriptors, fitting_connections, require_c_parser
from autoscaler.restart import restart_needed
from autoscaler.roots import RootTasks
from autoscaler.source_tasks import SourceTasks
from autoscaler.systemd import Notifier, inherited_sockets
from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.settings import AdminSettings, BackendSettings, FileSource, LbSettings, LimitSettings, TlsSettings
from lb.sources import build_sources

REPOSITORY = Path(__file__).parents[3]
CLOCK = Clock(lambda: 10.0, lambda: 0.0)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def test_systemd_is_told_of_each_state(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready("serving")
    notifier.reloading(12.5)
    notifier.alive()
    notifier.stopping("bye")
    assert [manager.recv(200).decode() for _ in range(4)] == [
        "READY=1\nSTATUS=serving",
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=bye",
    ]


def test_abstract_sockets_work_and_absent_ones_do_no_harm(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        name = f"tidegate-test-{os.getpid()}"
        receiver.bind("\0" + name)
        receiver.settimeout(5)
        Notifier({"NOTIFY_SOCKET": "@" + name}).alive()
        assert receiver.recv(100) == b"WATCHDOG=1"
    Notifier({}).alive()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()


def test_the_watchdog_interval_counts_only_for_the_process_meant() -> None:
    assert Notifier({"WATCHDOG_USEC": "3000000"}).watchdog_s == 3
    assert Notifier({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 3
    assert Notifier({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).watchdog_s is None
    assert Notifier({"WATCHDOG_USEC": "never"}).watchdog_s is None
    assert Notifier({}).watchdog_s is None


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, os.getpid()) == []
    assert inherited_sockets({"LISTEN_FDS": "1"}, os.getpid()) == []
    assert inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}, os.getpid()) == []


@pytest.mark.parametrize(
    ("wanted", "fds", "expected"), [(100, 1_000_000, 100), (20_000, 1024, 480), (100, 64, 0), (100, 10, 0)]
)
def test_connections_that_fit(wanted: int, fds: int, expected: int) -> None:
    assert fitting_connections(wanted, fds) == expected


class Limits:
    """Stands for the kernel's descriptor limits."""

    def __init__(self, soft: int, hard: int, *, locked: bool = False) -> None:
        self.current = (soft, hard)
        self._locked = locked

    def getrlimit(self, kind: int) -> tuple[int, int]:
        assert kind == resource.RLIMIT_NOFILE
        return self.current

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        assert kind == resource.RLIMIT_NOFILE
        if self._locked:
            raise ValueError("not allowed")
        self.current = limits


def fit(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> tuple[LbSettings, str | None]:
    monkeypatch.setattr(resource, "getrlimit", limits.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limits.setrlimit)
    return fit_descriptors(LbSettings(limits=LimitSettings(connections=1000)))


def test_g07_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(256, 500_000)
    settings, told = fit(monkeypatch, limits)
    assert (limits.current, settings.limits.connections, told) == ((500_000, 500_000), 1000, None)


def test_g07_without_a_hard_limit_what_is_needed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(256, resource.RLIM_INFINITY)
    assert fit(monkeypatch, limits)[1] is None
    assert limits.current[0] == 2 * 1000 + process.RESERVED_FDS


@pytest.mark.parametrize("limits", [Limits(512, 512), Limits(512, 4096, locked=True)])
def test_g07_too_few_descriptors_lower_the_cap_and_say_so(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, told = fit(monkeypatch, limits)
    assert settings.limits.connections == 224
    assert told is not None
    assert "lowered from 1000 to 224" in told
    assert "LimitNOFILE=2064" in told


def test_g07_hardly_any_descriptors_refuse_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError, match="only 64 file descriptors are allowed") as caught:
        fit(monkeypatch, Limits(64, 64))
    assert "ulimit -n 2064" in str(caught.value)


def test_the_parser_must_be_the_c_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    require_c_parser()
    import httptools.parser

    monkeypatch.setattr(httptools.parser, "parser", SimpleNamespace(__file__="/somewhere/parser.py"))
    with pytest.raises(StartError, match="not its C extension"):
        require_c_parser()


async def _fail() -> None:
    raise RuntimeError("broken")


async def _end() -> None:
    return


async def _forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("work", [_fail, _end])
async def test_a_root_task_that_ends_unasked_is_noticed_by_name(work, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    roots = RootTasks()
    roots.start("steady", _forever())
    roots.start("unsteady", work())
    async with asyncio.timeout(5):
        await roots.failed.wait()
    assert roots.failed_name == "unsteady"
    assert any(record.__dict__.get("task") == "unsteady" for record in caplog.records)
    await roots.stop_all()


async def test_root_tasks_that_are_stopped_are_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    roots = RootTasks()
    roots.start("a", _forever())
    roots.start("b", _forever())
    roots.stop("a")
    roots.start("a", _forever())
    await roots.stop_all()
    assert not roots.failed.is_set()
    assert caplog.records == []


class Sets:
    """Stands for the gateway: keeps what sources push."""

    def __init__(self) -> None:
        self.sources: dict[str, list[str]] = {}
        self.pushes = 0

    def set_source(self, name: str, endpoints: tuple[Endpoint, ...]) -> None:
        self.pushes += 1
        self.sources[name] = [endpoint.url for endpoint in endpoints]

    def drop_source(self, name: str) -> None:
        self.sources.pop(name, None)


async def _settle() -> None:
    await asyncio.sleep(0.05)


async def test_sources_follow_the_policy(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- url: http://file:1\n")
    gateway, roots = Sets(), RootTasks()
    tasks = SourceTasks(gateway, roots, CLOCK)  # type: ignore[arg-type]
    first = LbSettings(backends=(BackendSettings(url="http://a:1"),), files=(FileSource(path="r.yaml"),))
    tasks.follow(build_sources(first, tmp_path, CLOCK))
    await _settle()
    assert gateway.sources == {"static": ["http://a:1"], "file:r.yaml": ["http://file:1"]}
    tasks.follow(build_sources(first, tmp_path, CLOCK))
    await _settle()
    assert gateway.pushes == 2, "equal settings go on as they are"
    second = LbSettings(backends=(BackendSettings(url="http://b:1"),))
    tasks.follow(build_sources(second, tmp_path, CLOCK))
    await _settle()
    assert gateway.sources == {"static": ["http://b:1"]}
    assert tasks.report() == [{"name": "static", "replicas": 1, "age_s": 0.0, "error": None}]
    tasks.follow([])
    assert gateway.sources == {}
    assert not roots.failed.is_set()
    await roots.stop_all()


async def test_a_source_is_not_let_go_before_what_replaces_it_has_told_its_replicas(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("- url: http://old:1\n")
    gateway, roots = Sets(), RootTasks()
    tasks = SourceTasks(gateway, roots, CLOCK)  # type: ignore[arg-type]

    async def follow(*names: str) -> dict[str, list[str]]:
        settings = LbSettings(files=tuple(FileSource(path=name, interval_s=0.01) for name in names))
        tasks.follow(build_sources(settings, tmp_path, CLOCK))
        await _settle()
        return gateway.sources

    old = {"file:old.yaml": ["http://old:1"]}
    assert await follow("old.yaml") == old
    assert await follow("new.yaml") == old, "the new file is not there yet"
    assert await follow("newer.yaml") == old, "nor is this one"
    (tmp_path / "newer.yaml").write_text("- url: http://new:1\n")
    await _settle()
    assert gateway.sources == {"file:newer.yaml": ["http://new:1"]}
    assert await follow("newer.yaml", "missing.yaml") == {"file:newer.yaml": ["http://new:1"]}
    assert await follow("missing.yaml") == {}, "nothing came in its place"
    await roots.stop_all()


def test_what_needs_a_restart_is_said() -> None:
    old = LbSettings()
    assert restart_needed(old, LbSettings(backends=(BackendSettings(url="http://a:1"),))) == []
    assert restart_needed(old, LbSettings(listen="127.0.0.1:81")) == [
        "lb.listen stays 127.0.0.1:8080: 127.0.0.1:81 needs a restart"
    ]
    tls = TlsSettings(certificate="c", key="k")
    changed = LbSettings(admin=AdminSettings(listen="127.0.0.1:1", token="env:T"), tls=tls)
    assert [line.split()[0].rstrip(":") for line in restart_needed(old, changed)] == [
        "lb.tls",
        "lb.admin.listen",
        "lb.admin.token",
    ]
    with_ca = LbSettings(tls=tls.model_copy(update={"client_ca": "ca"}))
    assert restart_needed(LbSettings(tls=tls), with_ca) == ["lb.tls.client_ca needs a restart"]
    other = LbSettings(tls=TlsSettings(certificate="c2", key="k2"))
    assert restart_needed(LbSettings(tls=tls), other) == [], "a new certificate is read with a reload"


ORDER = """
import gc
from autoscaler import daemon
from autoscaler.errors import StartError
from autoscaler.policy.load import parse

done = []
daemon.settle_memory = lambda: done.append("memory settled")
real = daemon.Scaling.start

async def start(self, prepared):
    done.append("history")
    await real(self, prepared)

async def listen(self, sockets):
    done.append("listening" if self._metrics.pauses._collected in gc.callbacks else "not watched")
    raise StartError("far enough")

daemon.Scaling.start = start
daemon.Daemon._listen = listen
try:
    daemon.run_daemon(parse("lb: {listen: 127.0.0.1:0, admin: {listen: 127.0.0.1:0}}"))
except StartError:
    print(*done, sep=", ")
"""


def test_collections_are_settled_before_the_history_and_before_anybody_may_wait() -> None:
    """Half a million imported objects walked through again and again, and pauses counted that nobody had."""
    ran = subprocess.run([sys.executable, "-c", ORDER], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert ran.stdout == "memory settled, history, memory settled, listening\n"
