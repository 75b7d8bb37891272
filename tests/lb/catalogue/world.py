"""A proxy in this process, replicas that do as they are told, and what must be true after every row."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lb.auth import Authenticator
from lb.endpoint import Endpoint
from lb.errors import Reason
from lb.gateway import Gateway
from lb.proxy.observer import RequestRecord
from lb.proxy.server import ProxyServer
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import HealthSettings, LbSettings
from tests.lb.catalogue.client import Client, chat, get
from tests.lb.catalogue.upstream import Upstream
from tests.lb.catalogue.wire import Response

CONTROL_MODEL = "control"
CONTROL_EVERY_S = 0.1
CONTROL_S = 3.0
"""Far above what a request takes (a millisecond), as the machine may be busy with other tests."""


class Recorder:
    """Observer that keeps everything."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.refusals: list[Reason] = []
        self.open_connections = 0

    def finished(self, record: RequestRecord) -> None:
        if record.model != CONTROL_MODEL:
            self.records.append(record)

    def refused(self, reason: Reason) -> None:
        self.refusals.append(reason)

    def connections(self, delta: int) -> None:
        self.open_connections += delta

    @property
    def reasons(self) -> list[Reason]:
        """Why Tidegate refused, by record or without one."""
        return self.refusals + [record.reason for record in self.records if record.reason is not None]


class ErrorLog(logging.Handler):
    """Keeps what must not happen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


def open_fds() -> dict[str, str]:
    """Descriptor to what it is."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[entry.name] = str(entry.readlink())
    return found


def other_tasks() -> set[asyncio.Task[Any]]:
    """All tasks but the one that asks."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def eventually(condition: Callable[[], object], timeout_s: float = 5.0, what: str = "") -> None:
    """Wait until `condition()` is true."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline, f"not within {timeout_s} s: {what or condition}"
        await asyncio.sleep(0.005)


class World:
    """Made by the fixture `make_world`."""

    def __init__(
        self,
        settings: LbSettings,
        replicas: int,
        *,
        control: bool = True,
        control_headers: str = "",
        upstream_key: str | None = None,
    ) -> None:
        """`control` False: no replica of its own for the control client, which then asks for what is answered here.
        For rows whose requests name no model, and so might go to that replica."""
        self._control_headers = control_headers
        self._upstream_key = upstream_key
        self.settings = settings
        self._with_control = control
        self.upstreams = [Upstream() for _ in range(replicas)]
        self.recorder = Recorder()
        self._control_upstream = Upstream()
        self._control_task: asyncio.Task[None] | None = None
        self._clients: list[Client] = []
        self._errors = ErrorLog()
        self.expected_errors: list[str] = []
        """Beginnings of error lines that the row is meant to cause."""
        self.loop_errors: list[dict[str, Any]] = []
        self.address = ("", 0)

    async def start(self) -> World:
        loop = asyncio.get_running_loop()
        warm = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        warm.close()  # with its first listener libuv opens descriptors that it keeps
        await warm.wait_closed()
        await asyncio.sleep(0)
        self._fds = open_fds()
        self._tasks = other_tasks()
        loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        logging.getLogger().addHandler(self._errors)
        for upstream in [*self.upstreams, self._control_upstream]:
            await upstream.start()
        self.gateway = Gateway(self.settings, loop, random.Random(7))
        self.gateway.set_source("row", [self.endpoint(upstream) for upstream in self.upstreams])
        if self._with_control:
            self.gateway.set_source("zz-control", [self.endpoint(self._control_upstream, (CONTROL_MODEL,))])
        for endpoint in self.gateway.endpoints():
            self.ready(endpoint.id)
        self.server = ProxyServer(
            self.gateway,
            self.settings,
            self.recorder,
            Authenticator(self.settings.keys),
            upstream_key=self._upstream_key,
        )
        [self.address] = await self.server.start("127.0.0.1", 0)
        self._control_task = asyncio.create_task(self._control())
        return self

    def endpoint(self, upstream: Upstream, models: tuple[str, ...] = ("m",), replica_id: str | None = None) -> Endpoint:
        host, port = upstream.address
        return Endpoint(id=replica_id or upstream.url, host=host, port=port, models=models, runtime="vllm")

    def ready(self, replica_id: str) -> None:
        """Probe results that bring a replica in."""
        for _ in range(self.settings.health.rise):
            self.gateway.observe_probe(replica_id, ProbeResult(ProbeStatus.READY, runtime="vllm"))

    async def client(self, *, receive_buffer: int | None = None) -> Client:
        client = await Client.connect(self.address, receive_buffer=receive_buffer)
        self._clients.append(client)
        return client

    async def ask(self, request: bytes, *, head_only: bool = False, timeout_s: float = 8.0) -> Response:
        """One request on a connection of its own."""
        client = await self.client()
        await client.send(request)
        response = await client.response(head_only=head_only, timeout_s=timeout_s)
        client.close()
        assert response is not None, f"no answer to {request[:200]!r}"
        return response

    def state_of(self, upstream: Upstream) -> str:
        [state] = [replica.state for replica in self.view().replicas if replica.url == upstream.url]
        return str(state)

    def view(self) -> Any:
        return self.gateway.balancer.view(self.gateway.now())

    def in_flight(self, upstream: Upstream) -> int:
        [count] = [replica.in_flight for replica in self.view().replicas if replica.url == upstream.url]
        return int(count)

    async def _control(self) -> None:
        """I2: whatever the row does, another client gets its answers."""
        self.control_answers: list[int] = []
        headers = self._control_headers
        question = chat(model=CONTROL_MODEL, headers=headers) if self._with_control else get("/v1/models", headers)
        client: Client | None = None
        while True:
            if client is None:
                client = await self.client()
            await client.send(question)
            response = await client.response(timeout_s=CONTROL_S)
            if response is None:
                client.close()
                client = None
                continue
            self.control_answers.append(response.status)
            await asyncio.sleep(CONTROL_EVERY_S)

    async def check(self) -> None:
        """The invariants: I1 alive and no unhandled exception, I2 others are served, I3 everything is given back."""
        assert self._control_task is not None
        if not self.control_answers:
            await eventually(lambda: self.control_answers, what="the control client's answer")
        if self._control_task.done():
            self._control_task.result()
        self._control_task.cancel()
        await asyncio.gather(self._control_task, return_exceptions=True)
        assert set(self.control_answers) == {200}, f"I2: {self.control_answers}"
        for client in self._clients:
            client.close()
        await eventually(lambda: self.server.requests_in_progress == 0, what="I3: requests in progress back to 0")
        await eventually(lambda: self.server.connections == 0, what="I3: connections back to 0")
        await eventually(lambda: self.view().open_tickets == 0, what="I3: tickets back to 0")
        await eventually(lambda: sum(r.in_flight for r in self.view().replicas) == 0, what="I3: in flight back to 0")
        assert self.recorder.open_connections == 0

    async def close(self) -> None:
        if self._control_task is not None:
            self._control_task.cancel()
            await asyncio.gather(self._control_task, return_exceptions=True)
        for client in self._clients:
            client.close()
        await self.server.close()
        self.gateway.close()
        for upstream in [*self.upstreams, self._control_upstream]:
            await upstream.close()
        logging.getLogger().removeHandler(self._errors)

    async def check_closed(self) -> None:
        """I1 and the rest of I3, after everything is closed."""
        dirty = [line for upstream in self.upstreams for line in upstream.dirty]
        assert not dirty, f"bytes with two readings reached a replica: {dirty}"
        unexpected = [
            line for line in self._errors.lines if not any(line.startswith(start) for start in self.expected_errors)
        ]
        assert not unexpected, f"I1: {unexpected}"
        assert not self.loop_errors, f"I1: {self.loop_errors}"

        def given_back() -> bool:
            return len(open_fds()) <= len(self._fds) and other_tasks() <= self._tasks

        with contextlib.suppress(AssertionError):
            await eventually(given_back, 0.3)
        gc.collect()
        kept = sorted(set(open_fds().items()) - set(self._fds.items()))
        await eventually(given_back, what=f"I3: fds {kept}, tasks {other_tasks() - self._tasks}")


def lb_settings(**sections: Any) -> LbSettings:
    """Settings with replicas that count as warm at once; sections as dicts by their names in code."""
    health = {"warmup_s": 0.0, **sections.pop("health", {})}
    return LbSettings.model_validate({"health": HealthSettings(**health), **sections})


def statuses(responses: Sequence[Response]) -> list[int]:
    return [response.status for response in responses]
