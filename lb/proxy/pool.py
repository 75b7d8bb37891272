"""The connections to each replica: idle ones kept for the next request, new ones opened when there is none."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from lb.effects import Outcome
from lb.endpoint import Endpoint
from lb.proxy.deadlines import Deadlines
from lb.proxy.memo import Finder, Memo
from lb.proxy.upstream import Exchange, ReplyHead, UpstreamConnection
from lb.settings import LimitSettings, TimeoutSettings
from lb.targets import refuse_addresses

log = logging.getLogger(__name__)

_OUR_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
_IDLE_MAX = 512
"""Idle connections kept per replica: about twice what one replica serves at once."""


class ReplicaPool:
    """The connections to one replica."""

    def __init__(
        self,
        endpoint: Endpoint,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        limits: LimitSettings,
        timeouts: TimeoutSettings,
        tls: Callable[[], ssl.SSLContext],
        heads: Memo[ReplyHead],
        read_buffer: bytearray,
        write: Callable[[asyncio.Transport, bytes, bytes], None],
    ) -> None:
        self.endpoint = endpoint
        self.base_path = endpoint.base_path.encode()
        self.host_line = b"Host: %b\r\n" % endpoint.authority.encode()
        self.heads = heads
        self.known = Finder(heads)
        self.read_buffer = read_buffer
        self.write = write
        self.loop = loop
        self.deadlines = deadlines
        self.limits = limits
        self.timeouts = timeouts
        self._tls = tls
        self._idle: list[UpstreamConnection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False

    def take(self) -> UpstreamConnection | None:
        """The idle connection used last, as it is the least likely to have been closed meanwhile."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    def put(self, connection: UpstreamConnection) -> None:
        if self._closed or len(self._idle) >= _IDLE_MAX:
            connection.abort()
            return
        self._idle.append(connection)
        self.deadlines.set(connection, self.loop.time() + self.timeouts.upstream_idle_s)

    def forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def connect(self, exchange: Exchange) -> asyncio.Task[None]:
        """Open a connection for `exchange`, which hears of it by `connected` or `connect_failed`."""
        task = self.loop.create_task(self._connect(exchange), name=f"connect {self.endpoint.id}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    async def _connect(self, exchange: Exchange) -> None:
        endpoint = self.endpoint
        context = self._tls() if endpoint.tls else None
        connection = UpstreamConnection(self)
        host, tls_name = endpoint.host, endpoint.tls_name
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                if endpoint.guarded:
                    host, tls_name = await self._checked_address(), tls_name or host
                await self.loop.create_connection(
                    lambda: connection,
                    host,
                    endpoint.port,
                    ssl=context,
                    server_hostname=tls_name if endpoint.tls else None,
                )
        except TimeoutError:
            exchange.connect_failed(Outcome.CONNECT_TIMEOUT)
            return
        except (OSError, ssl.SSLError, UnicodeError) as error:
            ours = getattr(error, "errno", None) in _OUR_FAULT
            exchange.connect_failed(Outcome.ABORTED if ours else Outcome.CONNECT_FAILED)
            return
        exchange.connected(connection)

    async def _checked_address(self) -> str:
        """What the replica's name means now. The very address that was checked is connected to: a name that is looked
        up again may mean another. Raises OSError if no replica can be there."""
        endpoint = self.endpoint
        found = await self.loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        addresses = [str(sockaddr[0]) for *_, sockaddr in found]
        refusal = refuse_addresses(endpoint.host, addresses)
        if refusal is not None:
            log.warning("not connecting to replica %s: %s", endpoint.id, refusal)
            raise OSError(refusal)
        return addresses[0]

    def retire(self) -> None:
        """Close what is idle. Connections in use end with their request, and those that are being opened have one that
        waits for them: a replica that leaves has been chosen for it, and nobody would tell it otherwise."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    def close(self) -> None:
        """The same when no request is left, at the end of the process."""
        self.retire()
        for task in self._connecting:
            task.cancel()

    @property
    def idle(self) -> int:
        return len(self._idle)
