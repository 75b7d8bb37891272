"""Real processes for tests: simulated replicas that can be killed, the balancer, clients that never stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.lb.catalogue.client import Client, post
from tests.lb.catalogue.wire import Response

START_S = 30.0
"""A Python process with all imports takes a second; one of many on a busy machine, some."""
MODEL = "mock-model"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Process:
    """One `tidegate` command; its output goes to a file."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        self._arguments = arguments
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "autoscaler", *self._arguments, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, timeout_s: float = 15.0) -> int:
        assert self.process is not None
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Replica(Process):
    """A simulated runtime in a process of its own, on a port that it keeps over restarts."""

    def __init__(self, log: Path, *options: str) -> None:
        self.port = free_port()
        super().__init__(log, "mock-runtime", "--port", str(self.port), *options)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        await super().start()
        await self.listening()

    async def listening(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            assert time.monotonic() < deadline, self.output()[-500:]
            await asyncio.sleep(0.02)


class Balancer(Process):
    """`tidegate lb` or `tidegate run`, with its addresses."""

    def __init__(self, log: Path, *arguments: str, port: int, admin_port: int) -> None:
        super().__init__(log, *arguments)
        self.address = ("127.0.0.1", port)
        self.admin = f"http://127.0.0.1:{admin_port}"
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, log: Path, replicas: list[Replica], *options: str) -> Balancer:
        port, admin_port = free_port(), free_port()
        backends = [part for replica in replicas for part in ("--backend", replica.url)]
        arguments = ["lb", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin_port}", *backends, *options]
        return cls(log, *arguments, port=port, admin_port=admin_port)

    @classmethod
    def with_policy(cls, log: Path, policy: Path, replicas: list[Replica], **sections: Any) -> Balancer:
        """Writes a policy with these sections, which `rewrite` can change."""
        port, admin_port = free_port(), free_port()
        balancer = cls(log, "run", "--policy", str(policy), port=port, admin_port=admin_port)
        balancer._policy, balancer._replicas = policy, replicas
        balancer.rewrite(**sections)
        return balancer

    _policy: Path
    _replicas: list[Replica]

    def rewrite(self, **changes: Any) -> None:
        """Replace the policy file at once, as editors and Kubernetes do."""
        document = {
            "lb": {
                "listen": f"127.0.0.1:{self.address[1]}",
                "admin": {"listen": self.admin.removeprefix("http://")},
                "backends": [{"url": replica.url} for replica in self._replicas],
                **changes,
            }
        }
        fresh = self._policy.with_suffix(".new")
        fresh.write_text(json.dumps(document))  # JSON is YAML
        fresh.rename(self._policy)

    async def start(self) -> None:
        await super().start()
        self._session = self._session or aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        await self.until_ready()

    async def until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if (await self.call("GET", "/readyz"))[0] == 200:
                    return
            assert time.monotonic() < deadline, self.output()[-500:]
            await asyncio.sleep(0.05)

    async def call(self, method: str, path: str) -> tuple[int, Any]:
        """One request to the admin API."""
        assert self._session is not None
        url = aiohttp.client.URL(self.admin + path, encoded=True)
        async with self._session.request(method, url) as reply:
            return reply.status, await reply.json()

    async def replicas(self) -> dict[str, Any]:
        """The balancer's view of its replicas, by URL."""
        _, view = await self.call("GET", "/v1/replicas")
        return {replica["url"]: replica for replica in view["replicas"]}

    async def until(self, url: str, **wanted: Any) -> None:
        """Wait until the view of a replica has these values."""
        deadline = time.monotonic() + START_S
        while True:
            replica = (await self.replicas()).get(url, {})
            if all(replica.get(name) == value for name, value in wanted.items()):
                return
            assert time.monotonic() < deadline, f"{url} is {replica}, not {wanted}"
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self.kill()


@dataclass
class Answer:
    """One request's end as its client saw it."""

    streamed: bool
    status: int
    """0: no answer at all."""
    complete: bool
    """The answer has its proper end."""
    request_id: str
    at: float

    @property
    def ok(self) -> bool:
        return self.status == 200 and self.complete


@dataclass
class Load:
    """Clients in a closed loop, each on a keep-alive connection, half of their requests streamed."""

    address: tuple[str, int]
    clients: int = 8
    tokens: int = 20
    pause_s: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    _stop: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> Load:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self.clients)]
        return self

    async def stop(self) -> list[Answer]:
        """Let every request end, then return all answers."""
        self._stop = True
        await asyncio.gather(*self._tasks)
        return self.answers

    async def until(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait for that many further answers."""
        wanted = len(self.answers) + count
        deadline = time.monotonic() + timeout_s
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, f"only {count - wanted + len(self.answers)} of {count} answers"
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    async def _client(self, number: int) -> None:
        client: Client | None = None
        turn = number
        while not self._stop:
            turn += 1
            streamed = turn % 2 == 0
            if client is None:
                client = await Client.connect(self.address)
            await client.send(chat_request(streamed, self.tokens))
            response = await client.response(timeout_s=60.0)
            self.answers.append(self._answer(streamed, response))
            if response is None or response.close or not response.complete:
                client.close()
                client = None
            await asyncio.sleep(self.pause_s)
        if client is not None:
            client.close()

    @staticmethod
    def _answer(streamed: bool, response: Response | None) -> Answer:
        now = time.monotonic()
        if response is None:
            return Answer(streamed, 0, False, "", now)
        complete = response.complete and (not streamed or response.status != 200 or b"[DONE]" in response.body)
        return Answer(streamed, response.status, complete, response.get("x-request-id") or "", now)


def chat_request(streamed: bool, tokens: int) -> bytes:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": streamed,
        "max_tokens": tokens,
        "ignore_eos": True,
    }
    return post(json.dumps(body).encode())
