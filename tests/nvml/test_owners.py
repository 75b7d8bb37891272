"""Who owns a process and what it serves: over a made-up `/proc`, and over the real one with a real listener."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nvml.owners import INIT_PID_NAMESPACE, OwnerResolver, parse_listeners, parse_stat
from nvml.sample import GpuProcess, OwnerKind

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0
   1: 0100007F:1F41 0100007F:C001 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0000000000000000 20 4
"""
TCP6 = "header\n   0: " + "0" * 32 + ":1F90 " + "0" * 32 + ":0000 0A 0:0 00:0 0 1000 0 5555 1 0 100 0\n"


class Proc:
    """A `/proc` on disk."""

    def __init__(self, root: Path, namespace: str = INIT_PID_NAMESPACE) -> None:
        self.root = root
        (root / "self/ns").mkdir(parents=True)
        (root / "self/ns/pid").symlink_to(namespace)

    def process(
        self, pid: int, *, parent: int = 1, command: str = "python", started: int = 7, cgroup: str = "0::/"
    ) -> Path:
        folder = self.root / str(pid)
        for name in ("fd", "ns", "net"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        rest = " ".join(["0"] * 17)
        (folder / "stat").write_text(f"{pid} ({command}) S {parent} {rest} {started} 0 0\n")
        (folder / "cgroup").write_text(cgroup + "\n")
        (folder / "ns/net").unlink(missing_ok=True)
        (folder / "ns/net").symlink_to("net:[1]")
        (folder / "net/tcp").write_text(TCP)
        (folder / "net/tcp6").write_text(TCP6)
        return folder

    def socket(self, pid: int, fd: int, inode: int) -> None:
        (self.root / str(pid) / "fd" / str(fd)).symlink_to(f"socket:[{inode}]")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def attach(proc: Proc, *pids: int, now: float = 0.0, resolver: OwnerResolver | None = None) -> list[GpuProcess]:
    resolver = resolver or OwnerResolver(10.0, proc.root)
    return list(resolver.attach([GpuProcess(pid, 1) for pid in pids], now))


def test_a_unit_with_its_port(proc):
    proc.process(100, command="vllm serve", cgroup="0::/system.slice/vllm@0.service")
    proc.socket(100, 5, 4242)
    (found,) = attach(proc, 100)
    assert found.owner is not None
    assert (found.owner.kind, found.owner.name, found.owner.command) == (
        OwnerKind.SYSTEMD,
        "vllm@0.service",
        "vllm serve",
    )
    assert found.ports == (8000,)


def test_a_worker_has_the_port_of_its_listening_ancestor(proc):
    proc.process(100, command="api server")
    proc.socket(100, 5, 5555)
    proc.process(101, parent=100)
    proc.process(102, parent=101, command="VLLM::Worker_TP0")
    (found,) = attach(proc, 102)
    assert found.ports == (8080,)


def test_two_instances_of_one_unit_template_keep_their_own_ports(proc):
    proc.process(100, cgroup="0::/system.slice/vllm@0.service")
    proc.process(200, cgroup="0::/system.slice/vllm@1.service")
    proc.socket(100, 5, 4242)
    proc.socket(200, 5, 5555)
    assert [process.ports for process in attach(proc, 100, 200)] == [(8000,), (8080,)]


def test_a_pod_and_a_container(proc):
    pod, container = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0", "ab" * 32
    proc.process(100, cgroup=f"0::/kubepods/burstable/pod{pod}/{container}")
    proc.process(200, cgroup=f"0::/docker/{container}")
    first, second = attach(proc, 100, 200)
    assert first.owner is not None
    assert second.owner is not None
    assert (first.owner.kind, first.owner.name, first.owner.pod_uid) == (OwnerKind.POD, f"pod:{pod}", pod)
    assert (second.owner.kind, second.owner.name) == (OwnerKind.CONTAINER, "abababababab")


def test_a_connection_is_not_a_listener(proc):
    proc.process(100)
    proc.socket(100, 5, 4243)
    assert attach(proc, 100)[0].ports == ()


def test_a_loop_of_parents_ends(proc):
    proc.process(100, parent=101)
    proc.process(101, parent=100)
    assert attach(proc, 100)[0].ports == ()


def test_a_process_that_is_gone_is_left_out_on_a_host_and_kept_in_a_container(proc, tmp_path):
    assert attach(proc, 999) == []
    inside = Proc(tmp_path / "inside", "pid:[4026532999]")
    assert [process.pid for process in attach(inside, 999)] == [999]


def test_what_is_remembered_ends_with_its_time_or_its_process(proc):
    resolver = OwnerResolver(10.0, proc.root)
    proc.process(100, command="first")
    assert attach(proc, 100, now=0, resolver=resolver)[0].ports == ()
    proc.socket(100, 5, 4242)
    assert attach(proc, 100, now=9, resolver=resolver)[0].ports == ()
    assert attach(proc, 100, now=11, resolver=resolver)[0].ports == (8000,)
    proc.process(100, command="second", started=8)  # the pid was given to another process
    owner = attach(proc, 100, now=12, resolver=resolver)[0].owner
    assert owner is not None
    assert owner.name == "second"


def test_only_living_processes_are_remembered(proc):
    resolver = OwnerResolver(1e9, proc.root)
    for pid in range(100, 200):
        proc.process(pid)
    attach(proc, *range(100, 200), resolver=resolver)
    resolver.forget_except([150])
    assert list(resolver._known) == [150]
    resolver.forget_except([])
    assert resolver._listeners == {}


def test_parsing():
    assert parse_stat("12 (a (b) c) S 3 " + " ".join(str(n) for n in range(5, 30))) == ("a (b) c", 3, 22)
    assert parse_stat("") == ("", 0, 0)
    assert parse_listeners(TCP.splitlines()) == {4242: 8000}
    assert parse_listeners([]) == {}


def test_of_a_busy_machines_sockets_only_the_listening_are_read():
    """They come first; the kernel need not write out the rest."""
    header, listening, connected = TCP.splitlines()
    rows = iter([header, *[listening] * 3, *[connected] * 100_000])
    assert parse_listeners(rows) == {4242: 8000}
    assert sum(1 for _ in rows) == 100_000 - 1


def test_the_kernel_lists_listening_sockets_first():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        inode = os.fstat(server.fileno()).st_ino
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            assert client.getpeername()[1] == port
            with Path("/proc/self/net/tcp").open(encoding="ascii") as rows:
                assert parse_listeners(rows)[inode] == port
            states = [row.split()[3] for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    assert "0A" not in states[states.index("01") :]


def test_a_real_child_of_a_real_listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        resolver = OwnerResolver(10.0)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            mine, theirs = resolver.attach([GpuProcess(os.getpid(), 1), GpuProcess(child.pid, 1)], 0.0)
        finally:
            child.communicate(b"\n")
        assert port in mine.ports
        assert port in theirs.ports
        assert mine.owner is not None
