"""A daemon process that reads the scripted driver library through pynvml, and simulated runtimes on its cards."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.autoscaler.daemon.conftest import REPOSITORY, Daemon, daemon
from tests.nvml.conftest import build_library

__all__ = ["Card", "Cards", "Node", "Runtime", "daemon", "eventually"]
INTERVAL_S = 0.2


async def eventually(check: Callable[[], Awaitable[Any]], what: str, within_s: float = 30.0) -> float:
    """Seconds until `check` was true; the time allowed is for a machine that does ten other things."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if await check():
            return time.monotonic() - began
        await asyncio.sleep(0.02)
    pytest.fail(f"never: {what}")


class Runtime:
    """`tidegate mock-runtime` as a process, as an engine is one."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    async def start(cls) -> Runtime:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "autoscaler", "mock-runtime", "--port", "0", "--model", "m", "--speed", "2",
            cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        return cls(process, line.split()[-1])

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Card:
    """One card of the scripted driver, as `Node.say` speaks of it."""

    LOST = "on nvmlDeviceGetMemoryInfo_v2 gpu={} ret=15"
    THROTTLED = ("on nvmlDeviceGetCurrentClocksEventReasons gpu={} v0=64", "on nvmlDeviceGetClockInfo gpu={} v0=594")
    """Hardware thermal slowdown, at 30 % of 1,980 MHz."""
    ROW_REMAP_FAILED = "on nvmlDeviceGetRemappedRows gpu={} v3=1"
    WHOLE_AGAIN = "on nvmlDeviceGetRemappedRows gpu={}"


class Node:
    """One machine: a daemon, and the script of its driver."""

    def __init__(self, directory: Path, library: Path, token: str = "") -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.library = library
        self.daemon: Daemon
        self._script = directory / "live"

    def say(self, *commands: str) -> None:
        """From the next sample on."""
        new = self.directory / "live.new"
        new.write_text("".join(command + "\n" for command in commands))
        new.rename(self._script)

    @property
    def environment(self) -> dict[str, str]:
        return {"NVML_STUB_LIVE": str(self._script)}

    def write(self, *runtimes: Runtime, gpus: str | None = None, lb: str = "") -> str:
        """A policy; its name."""
        if gpus is None:
            gpus = f"{{library_path: '{self.library}', interval: {INTERVAL_S}s, deadline: 1s}}"
        backends = "".join(f"    - {{url: '{runtime.url}', models: [m]}}\n" for runtime in runtimes)
        (self.directory / "policy.yaml").write_text(
            f"gpus: {gpus}\n"
            "lb:\n"
            "  listen: 127.0.0.1:0\n"
            "  health: {interval: 200ms, warmup: 0s}\n"
            f"{lb}"
            f"  backends:\n{backends}"
        )
        return "policy.yaml"

    async def get(self, path: str) -> tuple[int, Any]:
        """From the admin API."""
        url = self.daemon.admin + path
        async with aiohttp.ClientSession(headers=self._headers) as session, session.get(url) as reply:
            text = await reply.text()
            return reply.status, await reply.json() if text.startswith("{") else text

    async def replica(self, runtime: Runtime) -> dict[str, Any]:
        status, view = await self.get("/v1/replicas")
        assert status == 200
        return next(one for one in view["replicas"] if one["url"] == runtime.url)

    async def ready(self, *runtimes: Runtime, gpu: str | None = "ok") -> None:
        """Until all take work and are tied to a card in that state."""

        async def good() -> bool:
            views = [await self.replica(runtime) for runtime in runtimes]
            return all(view["state"] == "ready" and view["gpu_state"] == gpu for view in views)

        await eventually(good, f"all ready, their cards {gpu}")


class Cards:
    """Chat through a daemon."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def chat(self, node: Node, tokens: int = 2) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens}
        async with self.session.post(f"{node.daemon.url}/v1/chat/completions", json=body) as reply:
            await reply.read()
            return reply.status

    async def stream(self, node: Node, tokens: int) -> aiohttp.ClientResponse:
        """A stream that has begun and has `tokens` to come."""
        body = {
            "model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens, "ignore_eos": True,
            "stream": True,
        }  # fmt: skip
        reply = await self.session.post(f"{node.daemon.url}/v1/chat/completions", json=body)
        assert reply.status == 200
        await reply.content.readuntil(b"\n\n")
        return reply


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("driver"), [])


@pytest.fixture
async def cards() -> AsyncIterator[Cards]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield Cards(session)


@pytest.fixture
async def runtimes() -> AsyncIterator[tuple[Runtime, Runtime]]:
    started = await asyncio.gather(Runtime.start(), Runtime.start())
    yield started[0], started[1]
    for runtime in started:
        await runtime.end()


@pytest.fixture
async def node(tmp_path: Path, library: Path, runtimes: tuple[Runtime, Runtime], daemon: Callable[..., Daemon]) -> Node:
    """Two cards, a runtime on each, and the daemon in front; both replicas are ready and tied to their cards."""
    made = Node(tmp_path, library)
    made.say("gpus 2", *(f"proc {card} {one.process.pid} 42949672960" for card, one in enumerate(runtimes)))
    arguments = ("run", "--policy", made.write(*runtimes, lb="  admin: {listen: '127.0.0.1:0'}\n"))
    made.daemon = await daemon(*arguments, env=made.environment).start()
    await made.ready(*runtimes)
    return made
