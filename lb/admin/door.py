"""Ends connections to the admin API that send no request, or never finish the head of one: aiohttp waits for ever."""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import web

from lb.admin.guard import READ_S, Handler

_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Doors:
    """The connections of one server, and which of them are in the middle of a request."""

    def __init__(self, head_s: float = READ_S) -> None:
        """`head_s`: from the opening of a connection, or the first byte of a request, to the end of its head."""
        self.head_s = head_s
        self.by_transport: dict[asyncio.BaseTransport, Door] = {}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tells a connection that its head is complete; the guard watches over the body."""
        door = self.by_transport.get(request.transport) if request.transport is not None else None
        if door is None:
            return await handler(request)
        door.began()
        try:
            return await handler(request)
        finally:
            door.ended()


class Door(asyncio.Protocol):
    """Stands before aiohttp's protocol and passes everything on. The deadline is absolute: a trickle gains nothing."""

    def __init__(self, doors: Doors, inner: asyncio.Protocol) -> None:
        self._doors = doors
        self._inner = inner
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._deadline: asyncio.TimerHandle | None = None
        self._busy = False
        self._waiting = False
        """Bytes of a further request came while one was answered."""
        self._some = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._doors.by_transport[transport] = self
        self._arm()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._some = True
        if self._busy:
            self._waiting = True
        elif self._deadline is None:
            self._arm()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._doors.by_transport.pop(self._transport, None)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def began(self) -> None:
        """A head is complete."""
        self._busy, self._waiting, self._some = True, False, False
        self._disarm()

    def ended(self) -> None:
        """Its request is answered; how long the connection may then be idle is aiohttp's to say."""
        self._busy = False
        if self._waiting:
            self._some = True
            self._arm()

    def _arm(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._doors.head_s, self._expire)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self._some:
            self._transport.write(_TIMED_OUT)
        self._transport.close()
