"""The listener of the data plane: start, reload, drain."""

from __future__ import annotations

import asyncio
import socket
import ssl

from lb.auth import Authenticator
from lb.gateway import Gateway
from lb.proxy.client import ClientConnection
from lb.proxy.context import ProxyContext
from lb.proxy.observer import Observer, SilentObserver
from lb.settings import LbSettings, TlsSettings

_BACKLOG = 4096
"""Connections that may wait to be accepted: a burst of clients after a restart, all at once."""
_LAST_CALL_S = 0.5
"""Longer than a round trip to any client that matters, short beside every grace."""


class ProxyServer:
    """Serves clients on one address. All methods are called on the event loop's thread."""

    def __init__(
        self,
        gateway: Gateway,
        settings: LbSettings,
        observer: Observer | None = None,
        authenticator: Authenticator | None = None,
        *,
        upstream_key: str | None = None,
    ) -> None:
        self._gateway = gateway
        self._context = ProxyContext(
            gateway, settings, observer or SilentObserver(), authenticator or Authenticator(settings.keys), upstream_key
        )
        gateway.on_endpoints(self._context.keep_pools)
        self._servers: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None

    async def start(self, host: str, port: int, *, sockets: list[socket.socket] | None = None) -> list[tuple[str, int]]:
        """Listen, on `sockets` that were handed to us if there are any; returns the addresses.

        Raises OSError if the address cannot be had, ssl.SSLError or OSError if the certificate cannot be read.
        """
        tls = self._context.settings.tls
        self._tls = server_tls(tls) if tls is not None else None
        loop = self._gateway.loop
        if sockets:
            for sock in sockets:
                self._servers.append(await loop.create_server(self._accept, sock=sock, ssl=self._tls, backlog=_BACKLOG))
        else:
            self._servers.append(
                await loop.create_server(self._accept, host, port, ssl=self._tls, backlog=_BACKLOG, reuse_address=True)
            )
        return [sock.getsockname()[:2] for server in self._servers for sock in server.sockets]

    def _accept(self) -> asyncio.BaseProtocol:
        return ClientConnection(self._context)

    def reconfigure(
        self, settings: LbSettings, authenticator: Authenticator, *, upstream_key: str | None = None
    ) -> None:
        """Use new settings for requests that begin from now on; running ones end under the old. Raises like `start`
        if a new certificate cannot be read, and then nothing has changed."""
        if settings.tls is not None and self._tls is not None:
            load_certificate(self._tls, settings.tls)
        self._context.configure(settings, authenticator, upstream_key)

    async def drain(self, grace_s: float) -> int:
        """Stop accepting, let running requests end within `grace_s`, then cut them; returns how many were cut."""
        context = self._context
        context.draining = True
        for server in self._servers:
            server.close()
        # A request may be on its way on a connection that looks idle here. For a moment it is still served, with
        # `Connection: close`; then what is idle is idle.
        await asyncio.sleep(min(_LAST_CALL_S, grace_s))
        self._gateway.shutdown()
        for connection in list(context.connections):
            connection.drain()
        if context.requests:
            try:
                async with asyncio.timeout(grace_s):
                    await context.idle.wait()
            except TimeoutError:
                pass
        left = context.requests
        for connection in list(context.connections):
            connection.cancel()
        context.flush()
        return left

    async def close(self) -> None:
        """Drop what is left. `drain` comes first where clients matter."""
        for server in self._servers:
            server.close()
        for connection in list(self._context.connections):
            connection.cancel()
            self._context.flush()
            connection.transport.abort()
        self._context.close()
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        return len(self._context.connections)

    @property
    def requests_in_progress(self) -> int:
        return self._context.requests


def server_tls(settings: TlsSettings) -> ssl.SSLContext:
    """A server-side context; raises OSError or ssl.SSLError if a file cannot be read."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, settings)
    if settings.client_ca is not None:
        context.load_verify_locations(cafile=settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    return context


def load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    """Read the certificate (again); connections that begin from now on get it."""
    context.load_cert_chain(settings.certificate, settings.key)
