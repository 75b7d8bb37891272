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
from autoscaler.demo.screen import Story, summary, where_to_look
from autoscaler.demo.traffic import Tally, wave
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
async def running(*options: str, **environment: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "autoscaler", "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
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
    """Those that run; one that nobody has waited for yet has ended."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
    return found


async def ended(pids: set[int]) -> set[int]:
    """What is left of them after a moment: a kill is not at once."""
    for _ in range(50):
        if not alive(pids):
            break
        await asyncio.sleep(0.1)
    return alive(pids)


def replicas_of(state: Path) -> set[int]:
    """Process ids of the replicas that a controller remembers there."""
    return {json.loads(path.read_text())["pid"] for path in state.glob("*/state/replicas/*/*.json")}


async def test_the_demo_scales_serves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running("--rate", "30", TMPDIR=str(tmp_path)) as demo:
        listen = (await demo.until(r"try it +curl -sN http://([\d.:]+)/v1"))[1]
        admin = (await demo.until(r"metrics +http://([\d.:]+)/metrics"))[1]
        await demo.until(r"chat: up 0 -> 1; floor: min_replicas is 1 +\[scale_up chat-")
        body = json.dumps({"model": "mock-model", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]})
        answer = await exchange(listen, "POST", "/v1/chat/completions", body.encode())
        assert answer.status == 200
        assert json.loads(answer.body)["usage"]["completion_tokens"] == 5
        assert answer.request_id
        await demo.until(r"chat: up 1 -> \d")
        line = (await demo.until(r"requests ([1-9]\d*)  failed none  first token p50 [\d.]+ s"))[1]
        assert int(line) > 10
        pools = await get_json(admin, "/v1/pools")
        assert pools is not None
        assert pools["pools"][0]["pool"] == "chat"
        assert await get_json(admin, f"/v1/explain/{answer.request_id}") is not None
        children = children_of(demo.process.pid) | replicas_of(tmp_path)
        assert len(children) >= 3
        demo.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(demo.process.wait(), 20) == 0
        assert await ended(children) == set()


def test_traffic_rises_and_falls_and_never_rests_wholly() -> None:
    rates = [wave(10.0, float(second)) for second in range(240)]
    assert max(rates) == pytest.approx(10.0)
    assert min(rates) == pytest.approx(1.0)
    assert rates[:120] == pytest.approx(rates[120:])
    assert rates[30] > 9.9
    assert set(map(round, rates[61:120])) == {1}


def test_what_was_done_is_told_once() -> None:
    story = Story(began=100.0)
    pool = {"pool": "chat", "at": 107.0, "sentence": "chat: up 1 -> 2",
            "record": {"actions": [{"action": "scale_up", "about": "chat-2"}]}}  # fmt: skip
    assert story.hear({"pools": [pool]}) == ["   7 s  chat: up 1 -> 2  [scale_up chat-2]"]
    assert story.hear({"pools": [pool]}) == []
    assert story.hear({"pools": [{**pool, "at": 109.0, "record": {"actions": []}}]}) == []
    assert story.hear(None) == []
    assert list(story.lines) == ["   7 s  chat: up 1 -> 2  [scale_up chat-2]"]


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
    text = where_to_look("127.0.0.1:1", "127.0.0.1:2", ["http://a:1"], own=True)
    for part in ("http://127.0.0.1:1/v1/chat/completions", "http://127.0.0.1:2/metrics", "/v1/explain/", "http://a:1"):
        assert part in text


def test_a_tally_without_answers_has_no_latency() -> None:
    tally = Tally(sent=2)
    tally.failed["503"] = 2
    assert "failed 2 x 503" in summary(tally)
    assert "first token p50 -" in summary(tally)
