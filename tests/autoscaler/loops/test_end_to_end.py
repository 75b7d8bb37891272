"""The real daemon starts, drains and ends real processes under real requests, and cuts none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.autoscaler.daemon.conftest import Daemon

STEP_S = 0.25
MOST_S = 60.0
"""Everything here takes seconds; a crowded machine takes longer."""


def policy(directory: Path, **pool: Any) -> Path:
    """A pool that is quick in everything."""
    mock = ["mock-runtime", "--port", "{port}", "--speed", "2", "--max-running", "8"]
    described = {
        "name": "chat", "models": ["mock-model"], "mode": "own", "min_replicas": 1, "max_replicas": 3,
        "backlog": "30s", "capacity": {"per_replica": 4, "confidence": 100_000.0},
        "start": {"p50": "3s", "p95": "6s"}, "down": {"hold": "3s", "payback": "1s"},
        "actuator": {"type": "process", "gpus": "none", "ports": [0, 0],
                     "command": [sys.executable, "-m", "autoscaler", *mock]}, **pool,
    }  # fmt: skip
    path = directory / "policy.yaml"
    path.write_text(
        json.dumps(
            {
                "lb": {"listen": "127.0.0.1:0", "admin": {"listen": "127.0.0.1:0"}},
                "store": {"directory": "state"},
                "scaling": {"interval": "1s", "pools": [described]},
            }
        )
    )
    return path


def processes(directory: Path) -> dict[str, int]:
    """Replicas that are remembered there, and their process ids."""
    found = {}
    for path in directory.glob("state/replicas/*/*.json"):
        with contextlib.suppress(OSError, ValueError):
            found[path.stem] = json.loads(path.read_text())["pid"]
    return found


def alive(replicas: dict[str, int]) -> bool:
    return all(Path(f"/proc/{pid}").exists() for pid in replicas.values())


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path
    for pid in processes(tmp_path).values():
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(pid, signal.SIGKILL)


class Clients:
    """Streams that must all come to their proper end."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url + "/v1/chat/completions"
        self._session = session
        self._open: set[asyncio.Task[None]] = set()
        self.whole = 0
        self.broken: list[str] = []

    async def one(self, tokens: int) -> None:
        body = {"model": "mock-model", "stream": True, "max_tokens": 4096, "mock_output_tokens": tokens,
                "messages": [{"role": "user", "content": "x" * 400}]}  # fmt: skip
        try:
            async with self._session.post(self._url, json=body) as reply:
                text = await reply.text()
        except aiohttp.ClientError as error:
            self.broken.append(repr(error))
            return
        if reply.status == 200 and text.rstrip().endswith("data: [DONE]"):
            self.whole += 1
        else:
            self.broken.append(f"{reply.status} {text[-200:]}")

    def send(self, tokens: int) -> None:
        task = asyncio.create_task(self.one(tokens))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def rest(self) -> None:
        await asyncio.gather(*self._open)


async def pool_of(daemon: Daemon) -> dict[str, Any]:
    _, answer = await daemon.get("/v1/pools")
    return dict(answer["pools"][0]) if answer["pools"] else {}


async def until(daemon: Daemon, phases: dict[str, int]) -> dict[str, Any]:
    """The pool once it has so many replicas in each phase."""
    pool: dict[str, Any] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MOST_S):
            while True:
                pool = await pool_of(daemon)
                seen = [one["phase"] for one in pool.get("replicas", [])]
                if all(seen.count(phase) == count for phase, count in phases.items()):
                    return pool
                await asyncio.sleep(STEP_S)
    raise AssertionError(f"wanted {phases}, got {pool}\n" + "\n".join(daemon.lines[-40:]))


@pytest.mark.timeout(240)
async def test_capacity_follows_demand_up_and_down_and_no_stream_is_cut(directory: Path) -> None:
    daemon = await Daemon(["run", "--policy", str(policy(directory))], directory).start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            clients = Clients(daemon.url, session)
            await until(daemon, {"ready": 1})
            busy = asyncio.create_task(_wave(clients, rate=11.0))
            await until(daemon, {"ready": 3})
            for _ in range(9):
                clients.send(700)  # some ten seconds: whoever has to leave has work left
            busy.cancel()
            pool = await until(daemon, {"ready": 1, "starting": 0, "draining": 0, "stopping": 0})
            await clients.rest()
        assert clients.broken == []
        assert clients.whole > 60
        assert len(processes(directory)) == 1
        status, explained = await daemon.get("/v1/pools/chat")
        assert status == 200
        assert explained["sentence"].startswith("chat: ")
        _, metrics = await daemon.get("/metrics")
        for action in ("scale_up", "drain", "stop"):
            assert f'tidegate_pool_actions_total{{action="{action}",pool="chat"' in metrics
        assert pool["record"]["mode"] == "own"
        up = [line for line in daemon.lines if "chat: up" in line]
        down = [line for line in daemon.lines if "chat: down" in line]
        assert len(up) in range(1, 6), up
        assert len(down) in range(1, 6), down
    finally:
        await daemon.kill()


async def _wave(clients: Clients, rate: float) -> None:
    while True:
        clients.send(40)
        await asyncio.sleep(1.0 / rate)


@pytest.mark.timeout(240)
async def test_replicas_and_what_was_learned_outlive_the_daemon(directory: Path) -> None:
    path = policy(directory, min_replicas=2)
    first = await Daemon(["run", "--policy", str(path)], directory).start()
    try:
        await until(first, {"ready": 2})
    finally:
        first.signal(signal.SIGTERM)
        assert await first.end() == 0
    before = processes(directory)
    assert len(before) == 2
    assert alive(before)
    second = await Daemon(["run", "--policy", str(path)], directory).start()
    try:
        pool = await until(second, {"ready": 2})
        assert processes(directory) == before, "taken over, none started anew"
        assert pool["record"]["start_stages"]["default"] != {}, "how long starts take was not forgotten"
    finally:
        await second.kill()
    third = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "autoscaler", "explain", "chat", "--store", "state/tidegate.db",
        cwd=directory, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    said, _ = await third.communicate()
    assert b"2 wanted, 2 there or starting, 2 ready" in said


@pytest.mark.timeout(240)
async def test_a_reload_changes_pools_and_a_bad_one_changes_nothing(directory: Path) -> None:
    path = policy(directory)
    daemon = await Daemon(["run", "--policy", str(path)], directory).start()
    try:
        await until(daemon, {"ready": 1})
        policy(directory, min_replicas=2)
        daemon.signal(signal.SIGHUP)
        await until(daemon, {"ready": 2})
        policy(directory, min_replicas=9)
        daemon.signal(signal.SIGHUP)
        refused = await daemon.log_line("policy refused")
        assert "min_replicas = 9" in refused
        await asyncio.sleep(2.5)
        assert [one["phase"] for one in (await pool_of(daemon))["replicas"]] == ["ready", "ready"]
    finally:
        await daemon.kill()
