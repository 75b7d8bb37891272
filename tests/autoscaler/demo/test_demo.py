"""`tidegate demo` as `make run` starts it: real processes, real sockets, ended by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.demo.children import free_address
from autoscaler.demo.client import exchange, get_json
from autoscaler.demo.screen import summary, where_to_look
from autoscaler.demo.traffic import Tally
from autoscaler.errors import StartError
from autoscaler.mock.server import MockServer
from autoscaler.mock.settings import MockSettings

ROOT = Path(__file__).parents[3]


class Demo:
    """A running demo and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def until(self, pattern: str) -> re.Match[str]:
        """Read its output until it matches."""
        assert self.process.stdout is not None
        async with asyncio.timeout(45):
            while (found := re.search(pattern, self.said)) is None:
                line = await self.process.stdout.readline()
                assert line, f"it ended after saying:\n{self.said}"
                self.said += line.decode()
        return found


@contextlib.asynccontextmanager
async def running(*options: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "autoscaler", "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        yield Demo(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def children_of(pid: int) -> set[int]:
    """Living processes whose parent is `pid`."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.add(int(stat.parent.name))
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


async def test_the_demo_serves_shows_traffic_and_leaves_nothing_behind() -> None:
    async with running("--rate", "20") as demo:
        listen = (await demo.until(r"try it +curl -sN http://([\d.:]+)/v1"))[1]
        admin = (await demo.until(r"metrics +http://([\d.:]+)/metrics"))[1]
        body = json.dumps({"model": "mock-model", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]})
        answer = await exchange(listen, "POST", "/v1/chat/completions", body.encode())
        assert answer.status == 200
        assert json.loads(answer.body)["usage"]["completion_tokens"] == 5
        assert answer.request_id
        view = await get_json(admin, "/v1/replicas")
        assert view is not None
        assert len(view["replicas"]) == 3
        assert await get_json(admin, f"/v1/explain/{answer.request_id}") is not None
        line = (await demo.until(r"requests (\d+)  failed none  first token p50 [\d.]+ s"))[1]
        assert int(line) > 10
        children = children_of(demo.process.pid)
        assert len(children) == 4
        demo.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(demo.process.wait(), 20) == 0
        assert alive(children) == set()


async def test_the_demo_fronts_ones_own_runtimes_and_sends_them_nothing() -> None:
    server = MockServer(MockSettings(speed=50.0))
    await server.start()
    try:
        url = f"http://127.0.0.1:{server.ports[0]}"
        async with running("--backend", url, "--duration", "3s") as demo:
            listen = (await demo.until(r"try it +curl -sN http://([\d.:]+)/v1"))[1]
            assert url in demo.said
            body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}).encode()
            assert (await exchange(listen, "POST", "/v1/chat/completions", body)).status == 200
            assert await asyncio.wait_for(demo.process.wait(), 20) == 0
        state: Any = json.loads((await exchange(f"127.0.0.1:{server.ports[0]}", "GET", "/mock/state")).body)
        assert state["requests"] == 1
    finally:
        server.close()


async def test_an_address_in_use_is_refused_when_it_was_asked_for() -> None:
    server = MockServer(MockSettings())
    await server.start()
    taken = f"127.0.0.1:{server.ports[0]}"
    try:
        with pytest.raises(StartError, match="cannot listen on"):
            free_address(taken, strict=True)
        other = free_address(taken, strict=False)
        assert other != taken
        assert other.startswith("127.0.0.1:")
    finally:
        server.close()


def test_what_is_printed_names_every_place_to_look() -> None:
    text = where_to_look("127.0.0.1:1", "127.0.0.1:2", ["http://a:1"], own=False)
    for part in ("http://127.0.0.1:1/v1/chat/completions", "http://127.0.0.1:2/metrics", "/v1/explain/", "http://a:1"):
        assert part in text


def test_a_tally_without_answers_has_no_latency() -> None:
    tally = Tally(sent=2)
    tally.failed["503"] = 2
    assert "failed 2 x 503" in summary(tally)
    assert "first token p50 -" in summary(tally)
