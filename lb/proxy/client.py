"""One client's connection: requests in, replies out, strictly in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from lb.errors import ProxyError, Reason
from lb.proxy.body import BodyReader
from lb.proxy.deadlines import NEVER
from lb.proxy.exchange import Exchange
from lb.proxy.head import Head, HeadReader
from lb.proxy.intake import Plan, admit
from lb.proxy.kernel import reset, unsent_bytes
from lb.proxy.local import local_answer
from lb.proxy.memo import Finder
from lb.proxy.record import refusal
from lb.proxy.reply import CONTINUE, own_reply
from lb.request import SurfaceName
from lb.settings import KeySettings
from lb.surfaces import SURFACES

if TYPE_CHECKING:
    from lb.proxy.context import ProxyContext

_AHEAD_BYTES = 65_536
"""Bytes of pipelined requests held while one is in progress; reading stops beyond."""
_LINGER_S = 1.0
"""How long a refused client may go on sending before its connection is closed under it: closing at once would reset
the connection and with it the error that explains the refusal."""
_LINGER_BYTES = 65_536
_HEAD: Final = 0
_BODY: Final = 1
_BUSY: Final = 2
"""A request is in progress; what arrives belongs to the next."""
_UPLOAD: Final = 3
"""A request is in progress and its body still arrives."""
_TUNNEL: Final = 4
_CLOSING: Final = 5


class ClientConnection(asyncio.BufferedProtocol):
    """One client connection. Reads one request at a time; bytes of further ones wait in `_buffer`."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._input = context.client_input
        self._reader = HeadReader(context.settings.limits, context.watched)
        self._plans = Finder(context.plans)
        self._state = _HEAD
        self._buffer = bytearray()
        self._head: Head | None = None
        self._arrival: Exchange | None = None
        """The request whose body is being read."""
        self._exchange: Exchange | None = None
        self._body: BodyReader | None = None
        self._pieces: list[bytes] = []
        self._last = False
        """No request can follow: FIN came, or bytes behind a chunked body hide where the next begins."""
        self._window_bytes = 0
        self._unsent: int | None = None
        self._paused = False
        self.forwarded = b""
        """X-Forwarded lines for requests that bring none."""
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.address = ""
        self.peer = ""
        self.tls = False
        self.http11 = True
        self.tunnelling = self.upload_began = False
        self.accepted: tuple[object, object, KeySettings | None] = (None, None, None)
        """The credentials that were accepted last on this connection, who said so, and whose they are."""
        self.deadline_at = NEVER
        self.bucket_at = NEVER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self._context
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = self.address = peer[0] if isinstance(peer, tuple) else "local"
        self.tls = transport.get_extra_info("ssl_object") is not None
        scheme = b"https" if self.tls else b"http"
        self.forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (self.peer.encode(), scheme)
        context.connections.add(self)
        context.observer.connections(1)
        if len(context.connections) > context.settings.limits.connections:
            self._refuse(ProxyError(Reason.QUEUE_FULL, 503, "too many connections", retry_after_s=1, close=True))
            return
        self.transport.set_write_buffer_limits(high=context.settings.limits.stream_buffer_bytes)
        self._set_deadline(context.settings.timeouts.head_s)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._input.buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._state == _HEAD and not self._buffer:
                data, behind = self._input.apart(nbytes)
                self._read_head(data, first=True, behind=behind)
            else:
                self._received(self._input.whole(nbytes))
        except ProxyError as error:
            self._refuse(error)

    def _received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            self._read_head(self._unbuffered() + data, first=False)
        elif state == _BODY:
            self._read_body(data)
        elif state == _BUSY:
            self._buffer += data
            if len(self._buffer) > _AHEAD_BYTES:
                self.reading(False)
        elif state == _UPLOAD:
            self._read_upload(data)
        elif state == _TUNNEL:
            assert self._exchange is not None
            self._exchange.tunnel_upload(data)
        else:
            self._window_bytes += len(data)
            if self._window_bytes > _LINGER_BYTES:
                self.transport.abort()

    def eof_received(self) -> bool:
        self._last = True
        return self._context.settings.forwarding.half_close == "wait" and self._state in (_BUSY, _CLOSING)

    def connection_lost(self, exc: Exception | None) -> None:
        context = self._context
        self.deadline_at = NEVER
        self._state = _CLOSING
        self._reader.close()
        context.connections.discard(self)
        context.observer.connections(-1)
        if self._exchange is not None:
            self._exchange.client_gone()
            self._exchange = None
        elif self._arrival is not None:
            self._arrival = None
            context.observer.refused(Reason.REQUEST_TIMEOUT)

    def pause_writing(self) -> None:
        context = self._context
        self._unsent = unsent_bytes(self.transport)
        self._set_deadline(context.settings.timeouts.write_stall_s)
        if self._exchange is not None:
            self._exchange.client_writable(False)

    def resume_writing(self) -> None:
        self._unsent = None
        self.deadline_at = NEVER
        if self._exchange is not None:
            self._exchange.client_writable(True)

    def on_deadline(self, now: float) -> None:
        context = self._context
        if self._unsent is not None:
            unsent = unsent_bytes(self.transport)
            if unsent < self._unsent:
                self._unsent = unsent
                self._set_deadline(context.settings.timeouts.write_stall_s)
            else:
                if self._exchange is not None:
                    self._exchange.client_gone(stalled=True)
                self.transport.abort()
        elif self._state == _HEAD:
            if self._buffer:
                self._refuse(ProxyError(Reason.REQUEST_TIMEOUT, 408, "the request head did not arrive in time"))
            else:
                self.transport.close()
        elif self._state in (_BODY, _UPLOAD):
            timeouts = context.settings.timeouts
            if self._window_bytes < timeouts.body_rate_bytes_s * timeouts.body_s:
                self._refuse(ProxyError(Reason.REQUEST_TIMEOUT, 408, "the request body did not arrive in time"))
            else:
                self._window_bytes = 0
                self._set_deadline(timeouts.body_s)
        elif self._state == _CLOSING:
            self.transport.abort()

    def _unbuffered(self) -> bytes:
        data, self._buffer = bytes(self._buffer), bytearray()
        return data

    def _read_head(self, data: bytes, first: bool, behind: bytes = b"") -> None:
        """`behind`: what came behind a complete head in the same read."""
        if data.startswith(b"\r\n"):
            data = data[2:]  # RFC 9112 2.2: one empty line before a request is ignored
        context, plans = self._context, self._plans
        plan = plans.find(data)
        body_at, length = plans.body_at, plans.length
        if body_at < 0:
            self._reader.check_partial(data)
            self._buffer += data
            if first:  # absolute from the first byte on: a trickle gains nothing
                self._set_deadline(context.settings.timeouts.head_s)
            return
        if plan is None:
            self._head = None
            self._head = self._reader.read(data[:body_at])
            plan = Plan(context, self._head)
            context.plans.keep(plans.key, plan)
        head = self._head = plan.head
        if length < 0:
            length = head.content_length
        self.http11 = head.http11
        self.tunnelling = self.upload_began = False
        info, owner = admit(context, self, plan, length)
        rest = data[body_at:] + behind
        if plan.local:
            self._answer(head, local_answer(context, head), rest)
            return
        if head.upgrade == b"websocket" and plan.route.surface is SurfaceName.WEBSOCKET and head.method == "GET":
            self.tunnelling = True
        exchange = Exchange(context, self, plan, info, owner, length)
        if length == len(rest) and length <= context.settings.limits.buffer_bytes and not head.chunked:
            self._start(exchange, rest, uploading=False)
        elif length <= 0 and not head.chunked:
            self._buffer += rest
            self._start(exchange, b"", uploading=False)
        else:
            self._expect_body(exchange, rest)

    def _expect_body(self, exchange: Exchange, rest: bytes) -> None:
        head = exchange.plan.head
        self._arrival = exchange
        if head.expect_continue and not rest:
            self._context.write(self.transport, CONTINUE)
        self._state = _BODY
        self._pieces = []
        self._window_bytes = 0
        length = -1 if head.chunked else exchange.length
        self._body = BodyReader(length, self._reader, self._context.settings.limits.body_bytes)
        self._set_deadline(self._context.settings.timeouts.body_s)
        if rest:
            self._read_body(rest)

    def _take_body(self, data: bytes) -> tuple[bytes, bool]:
        body = self._body
        assert body is not None
        self._window_bytes += len(data)
        piece, rest = body.take(data)
        self._buffer += rest
        self._last |= body.overrun
        if body.complete:
            self._body = None
        return piece, body.complete

    def _read_body(self, data: bytes) -> None:
        piece, complete = self._take_body(data)
        self._pieces.append(piece)
        held_bytes = self._body.received_bytes if self._body is not None else 0
        if complete or held_bytes > self._context.settings.limits.buffer_bytes:
            body = b"".join(self._pieces)
            self._pieces = []
            exchange = self._arrival
            assert exchange is not None
            if complete:
                self._arrival = None
            self._start(exchange, body, uploading=not complete)

    def _start(self, exchange: Exchange, body: bytes, uploading: bool) -> None:
        self._state = _UPLOAD if uploading else _BUSY
        if uploading:
            self.reading(False)  # until a replica is chosen and asks for more
        if self._unsent is None:
            self.deadline_at = NEVER
        self._exchange = exchange
        exchange.begin(body, uploading, self._context.loop.time())

    def upload_wanted(self) -> None:
        """A replica was chosen for a body that is still arriving."""
        self.upload_began = True
        self._window_bytes = 0
        self._set_deadline(self._context.settings.timeouts.body_s)
        self.reading(True)

    def _read_upload(self, data: bytes) -> None:
        assert self._exchange is not None
        piece, complete = self._take_body(data)
        if complete:
            self._state = _BUSY
            self._arrival = None
            self.deadline_at = NEVER
        self._exchange.upload(piece, complete)

    def tunnel(self) -> None:
        """From here on bytes pass as they are."""
        self._state = _TUNNEL
        if self._buffer and self._exchange is not None:
            self._exchange.tunnel_upload(self._unbuffered())

    def cancel(self) -> None:
        """End the request in progress with an error."""
        if self._exchange is not None:
            self._exchange.cancel()

    def answer(self, reply: bytes, close: bool) -> None:
        """Answer the request in progress with a reply of our own, and go on to the next."""
        self._context.write(self.transport, reply)
        self.exchange_done(close)

    def exchange_done(self, close: bool) -> None:
        """The reply is written: read the next request, or close."""
        self._exchange = None
        if self._state == _CLOSING:
            return
        if close or self._context.draining or self._last:
            self._close_lingering() if self._state == _UPLOAD else self.close_after_flush()
            return
        context = self._context
        self._state = _HEAD
        if self._paused:
            self.reading(True)
        if self._buffer:
            self._set_deadline(context.settings.timeouts.head_s)
            # Not at once: a client that pipelines without end must not keep the loop from others.
            context.loop.call_soon(self._resume, self._unbuffered())
        elif self._unsent is None:
            self._set_deadline(context.settings.timeouts.keep_alive_s)

    def _resume(self, data: bytes) -> None:
        if self._state == _HEAD:
            try:
                self._read_head(data + self._unbuffered(), first=True)
            except ProxyError as error:
                self._refuse(error)

    def _answer(self, head: Head, reply: bytes, rest: bytes) -> None:
        """Send a local answer to a request that needs no replica."""
        self._context.write(self.transport, reply)
        self._state = _BUSY
        if head.content_length > 0 or head.chunked or not head.keep_alive:
            self._close_lingering()  # its body, if any, is not read
            return
        self._buffer += rest
        self.exchange_done(False)

    def _refuse(self, error: ProxyError) -> None:
        """Answer bytes that are no good request, and close: what follows them cannot be told apart."""
        context = self._context
        exchange, self._exchange = self._exchange, None
        head, self._head = self._head, None
        self._arrival = None
        if exchange is not None:
            started = exchange.started
            exchange.client_gone()
            if started:
                self.transport.abort()
                return
        elif head is not None:
            context.observer.finished(refusal(error, head, self.address))
        else:
            context.observer.refused(error.reason)
        surface = SURFACES[SurfaceName(error.surface or SurfaceName.OTHER)]
        body = surface.error_body(error.status, error.reason, str(error))
        context.write(self.transport, own_reply(error.status, body, close=True, retry_after_s=error.retry_after_s))
        self._close_lingering()

    def close_after_flush(self) -> None:
        self._state = _CLOSING
        self._context.flush()
        self.transport.close()

    def _close_lingering(self) -> None:
        self._state = _CLOSING
        self._context.flush()
        self._buffer.clear()
        self._window_bytes = 0
        if not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self.reading(True)
            self.transport.write_eof()
            self._set_deadline(_LINGER_S)

    def reset(self) -> None:
        """Close with a reset, after what the kernel has taken."""
        self._state = _CLOSING
        self._context.flush()
        reset(self.transport)

    def drain(self) -> None:
        """The proxy stops: an idle connection is closed, a busy one after its reply."""
        if self._state == _HEAD and not self._buffer:
            self.close_after_flush()

    def reading(self, on: bool) -> None:
        if on == self._paused:
            self._paused = not on
            self.transport.resume_reading() if on else self.transport.pause_reading()

    def _set_deadline(self, delay_s: float) -> None:
        self._context.deadlines.set(self, self._context.loop.time() + delay_s)

    @property
    def stalled(self) -> bool:
        """Whether the client does not keep up with its replies."""
        return self._unsent is not None
