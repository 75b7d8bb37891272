"""The daemon in a process of its own, and replicas whose answers a test holds in its hand."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

REPOSITORY = Path(__file__).parents[3]
START_S = 30.0
"""A busy machine starts an interpreter in seconds; none takes this long."""


class Upstream:
    """A replica. Streams send one event, wait for `gate`, and send the rest."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.requests = 0
        self.seen: list[dict[str, str]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/{path:.*}", self.anything)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def anything(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.seen.append(dict(request.headers))
        body = await request.json()
        if not body.get("stream"):
            return web.json_response({"object": "chat.completion", "choices": [], "from": self.url})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n')
        await self.gate.wait()
        await response.write(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        return response


class Daemon:
    """`tidegate` as a child process; its log is kept line by line."""

    def __init__(self, arguments: list[str], directory: Path, **options: Any) -> None:
        self._arguments = arguments
        self._directory = directory
        self._options = options
        self.lines: list[str] = []
        self._changed = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process
        self.url = self.admin = ""

    async def start(self, *, wait: bool = True) -> Daemon:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **self._options.pop("env", {})}
        self.process = await asyncio.create_subprocess_exec(
            *self._options.pop("prefix", ()), sys.executable, "-m", "autoscaler", *self._arguments,
            cwd=self._directory, env=environment, stderr=asyncio.subprocess.PIPE, **self._options,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        if wait:
            line = await self.log_line("msg=ready")
            self.url = "http://" + _field(line, "listen")
            self.admin = "http://" + _field(line, "admin")
        return self

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._changed:
                self.lines.append(line.decode().rstrip())
                self._changed.notify_all()
        async with self._changed:
            self.lines.append("(end)")
            self._changed.notify_all()

    async def log_line(self, part: str, after: int = 0) -> str:
        """The first log line that has `part`, waiting for it."""
        async with asyncio.timeout(START_S), self._changed:
            await self._changed.wait_for(lambda: "(end)" in self.lines or any(part in x for x in self.lines[after:]))
        found = [line for line in self.lines[after:] if part in line]
        assert found, f"no {part!r} in the log:\n" + "\n".join(self.lines)
        return found[0]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def end(self) -> int:
        """Its exit code, once it is gone."""
        async with asyncio.timeout(START_S):
            code = await self.process.wait()
        assert self._reader is not None
        await self._reader
        return code

    async def kill(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
        await self.end()

    async def get(self, path: str) -> tuple[int, Any]:
        """From the admin API."""
        async with aiohttp.ClientSession() as session, session.get(self.admin + path) as response:
            text = await response.text()
            return response.status, await response.json() if text.startswith("{") else text


def _field(line: str, name: str) -> str:
    match = re.search(rf"\b{name}=(\S+)", line)
    assert match is not None, line
    return match[1]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    replica = Upstream()
    await replica.start()
    yield replica
    replica.gate.set()
    await replica.stop()


@pytest.fixture
async def second_upstream() -> AsyncIterator[Upstream]:
    replica = Upstream()
    await replica.start()
    yield replica
    replica.gate.set()
    await replica.stop()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def make(*arguments: str, **options: Any) -> Daemon:
        made.append(Daemon(list(arguments), tmp_path, **options))
        return made[-1]

    yield make
    for process in made:
        if hasattr(process, "process"):
            await process.kill()


@pytest.fixture
def write_policy(tmp_path: Path) -> Callable[..., Path]:
    def write(*urls: str, more: str = "", listen: str = "127.0.0.1:0") -> Path:
        backends = "".join(f"    - {{url: '{url}', runtime: generic}}\n" for url in urls)
        text = f"lb:\n  listen: {listen}\n  admin: {{listen: '127.0.0.1:0'}}\n  backends:\n{backends}{more}"
        file = tmp_path / "policy.yaml"
        new = tmp_path / "policy.yaml.new"
        new.write_text(text)
        new.rename(file)
        return file

    return write


async def chat(session: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any]:
    async with session.post(
        f"{url}/v1/chat/completions", json={"model": "m", "messages": []}, headers=headers
    ) as response:
        return response.status, await response.json()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as opened:
        opened.chat = lambda url, **headers: chat(opened, url, **headers)  # type: ignore[attr-defined]
        yield opened
