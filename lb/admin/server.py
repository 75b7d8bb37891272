"""The admin API's server, on an address of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from lb.address import is_loopback, parse_address, show_address
from lb.admin.door import Door, Doors
from lb.admin.guard import READ_S, Guard
from lb.admin.handlers import AdminHooks, Handlers
from lb.errors import SettingsError
from lb.metrics import LbMetrics

if TYPE_CHECKING:
    from lb.gateway import Gateway

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 << 10
"""The largest body is the description of one replica."""
KEEP_ALIVE_S = 75.0
SHUTDOWN_S = 1.0
"""Answers take milliseconds; who is still reading then has stopped."""


class AdminServer:
    """Serves metrics, health, replicas, explanations and reloads.

    `token` is the secret itself, already read; None: anybody who reaches a loopback address may use the API. Raises
    SettingsError when `listen` is reachable from other machines and there is no token.
    """

    def __init__(
        self,
        gateway: Gateway,
        metrics: LbMetrics,
        hooks: AdminHooks,
        *,
        listen: str,
        token: str | None = None,
        head_s: float = READ_S,
    ) -> None:
        self._host, self._port = parse_address(listen)
        if token is None and not is_loopback(self._host):
            raise SettingsError(
                f"admin.listen: {listen} is reachable from other machines; set admin.token or listen on 127.0.0.1"
            )
        guard = Guard(token, self._host)
        self._doors = Doors(head_s)
        self._server: asyncio.Server | None = None
        self._app = web.Application(
            middlewares=[self._doors.middleware, guard.middleware], client_max_size=MAX_BODY_BYTES
        )
        self._app.add_routes(Handlers(gateway, metrics, hooks).routes())
        self._runner = web.AppRunner(
            self._app, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=SHUTDOWN_S
        )

    @property
    def app(self) -> web.Application:
        return self._app

    @property
    def address(self) -> str:
        """Where it listens, with the port that the kernel chose if it was 0; valid once started."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return show_address(str(host), int(port))

    async def start(self) -> None:
        """Listen. Raises OSError if the address is taken."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, self._host, self._port, reuse_address=True)
        log.info("the admin API listens", extra={"address": self.address})

    def _accept(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        return Door(self._doors, self._runner.server())

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
