"""The process of the simulated runtime: sockets, start-up, SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable

from autoscaler.mock.connection import Connection
from autoscaler.mock.fault import Fault, FaultKind
from autoscaler.mock.runtime import Runtime
from autoscaler.mock.settings import MockSettings

_BACKLOG = 16_384
"""Room for a benchmark that opens 10,000 connections at once."""


class MockServer:
    """`count` replicas on as many ports."""

    def __init__(self, settings: MockSettings) -> None:
        self._settings = settings
        self._sockets = [
            _bound(settings.host, settings.port + i if settings.port else 0) for i in range(settings.count)
        ]
        self._servers: list[asyncio.Server] = []
        self._timers: list[asyncio.TimerHandle] = []
        self.runtimes: list[Runtime] = []

    @property
    def ports(self) -> list[int]:
        return [sock.getsockname()[1] for sock in self._sockets]

    async def start(self) -> None:
        """Returns when requests are taken (or answered 503, if it starts up that way)."""
        settings = self._settings
        self.runtimes = [Runtime(settings) for _ in self._sockets]
        start_up_s = settings.start_up_s / settings.speed
        if start_up_s and settings.start_up_refuses:
            await asyncio.sleep(start_up_s)
        elif start_up_s:
            for runtime in self.runtimes:
                runtime.set_fault(Fault(FaultKind.LOADING))
            self._later(start_up_s, self._loaded)
        if settings.warm_up_s:
            for runtime in self.runtimes:
                runtime.set_warm_up(settings.warm_up_factor)
            self._later(start_up_s + settings.warm_up_s / settings.speed, self._warm)
        loop = asyncio.get_running_loop()
        for sock, runtime in zip(self._sockets, self.runtimes, strict=True):
            self._servers.append(
                await loop.create_server(lambda runtime=runtime: Connection(runtime), sock=sock, backlog=_BACKLOG)  # type: ignore[misc]
            )

    async def drain(self) -> None:
        """Refuse new connections, let running requests end within `drain_s`, close what is left."""
        for server in self._servers:
            server.close()
        for runtime in self.runtimes:
            runtime.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                for runtime in self.runtimes:
                    await runtime.emptied.wait()
        self.close()

    def close(self) -> None:
        """End at once."""
        for timer in self._timers:
            timer.cancel()
        for server in self._servers:
            server.close()
        for runtime in self.runtimes:
            for connection in list(runtime.connections):
                connection.cut()
        for sock in self._sockets:
            sock.close()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, action))

    def _loaded(self) -> None:
        for runtime in self.runtimes:
            runtime.set_fault(self._settings.fault)

    def _warm(self) -> None:
        for runtime in self.runtimes:
            runtime.set_warm_up(1.0)


def _bound(host: str, port: int) -> socket.socket:
    """Bound but not listening: connections are refused until it is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


async def serve(settings: MockSettings, announce: Callable[[list[int]], None]) -> None:
    """Run until SIGTERM or SIGINT; `announce` gets the ports when they take requests."""
    server = MockServer(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    starting = asyncio.create_task(server.start(), name="start-up")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        announce(server.ports)
        await stopping
        await server.drain()
    else:
        starting.cancel()
        server.close()
