"""What all connections of one proxy share."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from typing import TYPE_CHECKING

from lb.auth import Authenticator
from lb.endpoint import Endpoint
from lb.gateway import Gateway
from lb.paths import PathTable
from lb.proxy.deadlines import Deadlines
from lb.proxy.input import Input
from lb.proxy.memo import Memo
from lb.proxy.observer import Observer
from lb.proxy.pool import ReplicaPool
from lb.proxy.upstream import ReplyHead
from lb.settings import LbSettings

if TYPE_CHECKING:
    from lb.proxy.client import ClientConnection
    from lb.proxy.intake import Plan

_AT_ONCE_BYTES = 16_384
"""Longer writes go out at once; beside them a wake-up costs little."""
_PLANS = 1024
"""Request heads remembered, about 3 kB each."""
_READ_BYTES = 65_536
"""Most that is read of a reply at once, and with the send buffer's limit the most that is held of it."""
_REPLY_HEADS = 2048
"""Reply heads remembered, about 1 kB each; those with a date are new every second."""


def _send(transport: asyncio.Transport, data: bytes, more: bytes) -> None:
    if transport.is_closing():
        return
    if more:
        transport.writelines((data, more))
    else:
        transport.write(data)


class ProxyContext:
    """Settings, pools and registers; replaced piecewise on reload, so connections read them anew for each request."""

    def __init__(
        self,
        gateway: Gateway,
        settings: LbSettings,
        observer: Observer,
        authenticator: Authenticator,
        upstream_key: str | None,
    ) -> None:
        self.gateway = gateway
        self.balancer = gateway.balancer
        self.loop: asyncio.AbstractEventLoop = gateway.loop
        self.observer = observer
        self.deadlines = Deadlines(self.loop)
        self.connections: set[ClientConnection] = set()
        self.requests = 0
        """Requests in progress."""
        self.draining = False
        self.idle = asyncio.Event()
        """Set when the last request of a drain has ended."""
        self.plans: Memo[Plan] = Memo(_PLANS)
        self._reply_heads: Memo[ReplyHead] = Memo(_REPLY_HEADS)
        self._read_buffer = bytearray(_READ_BYTES)
        self.client_input = Input()
        self._unwritten: list[tuple[asyncio.Transport, bytes, bytes]] = []
        self._pools: dict[str, ReplicaPool] = {}
        self._upstream_tls: ssl.SSLContext | None = None
        self._id_prefix = secrets.token_hex(6)
        self._ids = 0
        self.configure(settings, authenticator, upstream_key)

    def configure(self, settings: LbSettings, authenticator: Authenticator, upstream_key: str | None) -> None:
        """Use new settings for requests that begin from now on."""
        self.settings = settings
        self.authenticator = authenticator
        self.paths = PathTable(settings.paths)
        admission = settings.admission
        names = (settings.routing.session_header, admission.deadline_header, admission.priority_header)
        self.watched = tuple(name for name in names if name is not None)
        self.watched_names = frozenset(name.lower().encode() for name in self.watched)
        self.session_header, self.deadline_header, self.priority_header = (
            name.lower().encode() if name is not None else None for name in names
        )
        mode = settings.forwarding.upstream_authorization
        self.forward_authorization = mode == "forward"
        self.authorization_line = b""
        if mode == "replace" and upstream_key is not None:
            self.authorization_line = b"Authorization: Bearer %b\r\n" % upstream_key.encode()
        self.plans.clear()

    def write(self, transport: asyncio.Transport, data: bytes, more: bytes = b"") -> None:
        """Send `data` and `more` at the end of this turn of the loop, in order.

        A send wakes the peer if it sleeps, which costs more than the send; sent together, one wake-up serves many.
        `more` saves joining a long body to its head.
        """
        if len(data) > _AT_ONCE_BYTES or len(more) > _AT_ONCE_BYTES:
            self.flush()
            _send(transport, data, more)  # so that a full send buffer stops the reading that fills it, in this turn
            return
        if not self._unwritten:
            self.loop.call_soon(self.flush)
        self._unwritten.append((transport, data, more))

    def flush(self) -> None:
        """Send now what waits; to be called before a transport is closed."""
        if self._unwritten:
            unwritten, self._unwritten = self._unwritten, []
            for transport, data, more in unwritten:
                _send(transport, data, more)

    def next_id(self) -> str:
        """A request id that is unique over processes and restarts."""
        self._ids += 1
        return f"{self._id_prefix}-{self._ids:x}"

    def pool(self, endpoint: Endpoint) -> ReplicaPool:
        """The connections to a replica; made anew when discovery changed where the replica is."""
        pool = self._pools.get(endpoint.id)
        if pool is None or pool.endpoint is not endpoint:
            if pool is not None:
                pool.retire()
            pool = ReplicaPool(
                endpoint,
                self.loop,
                self.deadlines,
                self.settings.limits,
                self.settings.timeouts,
                self.upstream_tls,
                self._reply_heads,
                self._read_buffer,
                self.write,
            )
            self._pools[endpoint.id] = pool
        return pool

    def keep_pools(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Close the idle connections to replicas that are gone."""
        wanted = {endpoint.id for endpoint in endpoints}
        for replica_id in [replica_id for replica_id in self._pools if replica_id not in wanted]:
            self._pools.pop(replica_id).retire()

    def upstream_tls(self) -> ssl.SSLContext:
        """Verifies replicas against the system's authorities; read once, as that takes 20 ms."""
        if self._upstream_tls is None:
            self._upstream_tls = ssl.create_default_context()
        return self._upstream_tls

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self.deadlines.close()
