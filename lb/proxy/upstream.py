"""Connections to replicas: one request at a time on each, kept alive in a pool per replica."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from lb.effects import Outcome
from lb.proxy.deadlines import NEVER

if TYPE_CHECKING:
    from lb.proxy.pool import ReplicaPool

_DROPPED = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer", b"upgrade",
        b"transfer-encoding", b"content-length", b"x-request-id",
    }
)  # fmt: skip
_KEPT = frozenset({b"content-type", b"content-encoding", b"retry-after"})
_INTERIM_MAX = 16
"""Interim (1xx) replies to one request; more is a fault of the replica."""
_PRINTABLE = bytes(b for b in range(256) if b == 9 or (b >= 32 and b != 127))
_MEMO_BYTES = 2048
"""Longer reply heads are parsed each time; runtimes send 100 to 300 bytes."""


class Exchange(Protocol):
    """The request that a connection works for."""

    def response_whole(self, connection: UpstreamConnection, lines: bytes, body: bytes) -> None:
        """All of a reply with a known length. `lines`: status line and headers, without the length."""

    def response_data(self, connection: UpstreamConnection, head: bool, body: bytes, complete: bool) -> None:
        """Part of the reply: `head` on the first call (its fields are on the connection), then body bytes."""

    def upstream_lost(self, connection: UpstreamConnection, outcome: Outcome) -> None:
        """The connection failed before the reply was complete."""

    def upstream_writable(self, writable: bool) -> None:
        """The connection's send buffer is full, or has room again."""

    def connected(self, connection: UpstreamConnection) -> None:
        """The connection asked for is there."""

    def connect_failed(self, outcome: Outcome) -> None:
        """It could not be had."""

    def tunnel_data(self, data: bytes) -> None:
        """Bytes of an upgraded connection."""


class ReplyHead:
    """A reply's head that was parsed and judged once."""

    __slots__ = ("joined", "keep_alive", "kept", "lines", "reason", "status")

    def __init__(self, connection: UpstreamConnection, keep_alive: bool) -> None:
        self.status = connection.status
        self.reason = connection.reason
        self.lines = connection.lines
        self.kept = connection.kept
        self.keep_alive = keep_alive
        self.joined = b"HTTP/1.1 %d %b\r\n%b" % (self.status, self.reason, b"".join(self.lines))


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection to a replica, and the reply that is being read from it.

    A reply is read by llhttp, but for the common case: its head was seen before (`lb.proxy.memo`) and states a length.
    Then nothing is left to parse, and bytes are only counted.
    """

    def __init__(self, pool: ReplicaPool) -> None:
        self._pool = pool
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._buffer = pool.read_buffer
        self._view = memoryview(pool.read_buffer)
        self.base_path = pool.base_path
        self.host_line = pool.host_line
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.exchange: Exchange | None = None
        self.reused = False
        self.paused = False
        self.received_bytes = 0
        self.deadline_at = NEVER
        self.bucket_at = NEVER
        self._closed = False
        self._keep_alive = False
        self._no_body = False
        self._missing = 0
        """Bytes that the body still lacks, where they are only counted."""
        self._begin()

    def _begin(self) -> None:
        """Forget the last reply."""
        self.status = 0
        self.reason = b""
        self.lines: list[bytes] = []
        self.kept: dict[bytes, bytes] = {}
        self.content_length = -1
        self.upgraded = False
        self._begun = False
        self._head_done = False
        self._complete = False
        self._extra = False
        self._chunked = False
        self._close_framed = False
        self._nominated: bytes | None = None
        self._interim = 0
        self._headers = 0
        self._head_bytes = 0

    # what an exchange does -----------------------------------------------------------------------------------------

    def send(self, exchange: Exchange, head: bytes, body: bytes, no_body: bool, deadline_at: float) -> None:
        """Send a request (or its beginning). `no_body`: the reply has none (HEAD)."""
        self.exchange = exchange
        self.received_bytes = 0
        self._begun = self._head_done = False
        self._no_body = no_body
        self._pool.deadlines.set(self, deadline_at)
        self._pool.write(self.transport, head, body)

    def pause(self) -> None:
        """Stop reading the reply: its reader does not keep up."""
        if not self.paused and not self._closed:
            self.paused = True
            self.deadline_at = NEVER
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.paused and not self._closed:
            self.paused = False
            self._pool.deadlines.set(self, self._pool.loop.time() + self._pool.timeouts.idle_s)
            self.transport.resume_reading()

    def release(self) -> None:
        """The reply is complete: keep the connection for the next request, or close it."""
        self.exchange = None
        if self._closed or self._extra or not self._keep_alive or self._no_body or self.paused:
            self.abort()
            return
        self.reused = True
        self._pool.put(self)

    def abort(self) -> None:
        """Close at once, without waiting for anything unsent."""
        self.exchange = None
        self.deadline_at = NEVER
        if not self._closed and self.transport is not None:
            self._closed = True
            self.transport.abort()

    @property
    def usable(self) -> bool:
        return not self._closed and not self.transport.is_closing()

    # asyncio's callbacks -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        """One buffer for all connections: it is read into and emptied in one step. uvloop's own is four times as large,
        and a reader that has to be paused would be paused that much too late."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._view[:nbytes].tobytes()
        exchange = self.exchange
        if exchange is None:
            self._pool.forget(self)  # bytes that nobody asked for would become the next client's reply
            self.abort()
            return
        pool = self._pool
        if self._begun:
            if self.upgraded:
                exchange.tunnel_data(data)
                return
            self.received_bytes += len(data)
            if self._head_done:
                self.deadline_at = pool.loop.time() + pool.timeouts.idle_s
            if self._missing:
                self._count(exchange, data)
                return
        else:
            self.received_bytes += len(data)
            if not self._no_body:
                heads = pool.known
                known = heads.find(data)
                if known is not None:
                    self._known_head(exchange, known, heads.length, data[heads.body_at :])
                    return
                if heads.length >= 0 and 0 < heads.body_at <= _MEMO_BYTES:
                    self._parse(exchange, data, heads.key)
                    return
        self._parse(exchange, data, None)

    def _known_head(self, exchange: Exchange, known: ReplyHead, length: int, body: bytes) -> None:
        self.status = known.status
        self.kept = known.kept
        self._keep_alive = known.keep_alive
        missing = length - len(body)
        if missing == 0:
            self.lines = known.lines
            self.reason = known.reason
            self.content_length = length
            exchange.response_whole(self, known.joined, body)
            return
        self._begin()
        self._begun = self._head_done = True
        self.status = known.status
        self.kept = known.kept
        self.reason = known.reason
        self.lines = known.lines
        self.content_length = length
        self._watch_silence()
        if missing < 0:
            body = body[:length]
            self._extra = True
        self._missing = max(missing, 0)
        self._complete = missing < 0
        exchange.response_data(self, True, body, self._complete)

    def _watch_silence(self) -> None:
        """The reply has begun: from here on each read moves the deadline."""
        self._pool.deadlines.set(self, self._pool.loop.time() + self._pool.timeouts.idle_s)

    def _count(self, exchange: Exchange, data: bytes) -> None:
        if len(data) > self._missing:
            data = data[: self._missing]
            self._extra = True
        self._missing -= len(data)
        self._complete = not self._missing
        exchange.response_data(self, False, data, self._complete)

    def _parse(self, exchange: Exchange, data: bytes, key: bytes | None) -> None:
        if not self._begun:
            self._begin()  # what is left of the last reply may belong to the memo
            self._begun = True
        had_head = self._head_done
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._complete:
                self._fail(Outcome.INVALID)
                return
            self._extra = True  # what came behind the answer is broken, the answer is not
        if not self._head_done:
            if self.received_bytes > self._pool.limits.response_head_bytes:
                self._fail(Outcome.INVALID)
            return
        if not had_head:
            self._watch_silence()
            if key is not None and not self._interim and self.status not in (204, 304):
                self._pool.heads.keep(key, ReplyHead(self, self._keep_alive))
        parts = self._parts
        if not parts:
            body = b""
        else:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        exchange.response_data(self, not had_head, body, self._complete)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._parser = None  # the two hold each other, and only the garbage collector would part them
        self.deadline_at = NEVER
        exchange = self.exchange
        if exchange is None:
            self._pool.forget(self)
            return
        if self._close_framed and exc is None and not self._complete:
            self._complete = True
            self._keep_alive = False
            exchange.response_data(self, False, b"", True)
            return
        self.exchange = None
        exchange.upstream_lost(self, Outcome.RESET)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_writable(False)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_writable(True)

    def on_deadline(self, now: float) -> None:
        """Idle in the pool for too long, or a reply that does not come."""
        if self.exchange is None:
            self._pool.forget(self)
            self.abort()
        else:
            self._fail(Outcome.IDLE_TIMEOUT if self._head_done else Outcome.FIRST_BYTE_TIMEOUT)

    # llhttp's callbacks --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._extra = True

    def on_status(self, reason: bytes) -> None:
        if reason.translate(None, _PRINTABLE):
            raise ValueError("control characters in the reason")
        self.reason += reason  # it comes in pieces if it was read in pieces
        self._head_bytes += len(reason)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # a trailer: dropped
        self._headers += 1
        self._head_bytes += len(name) + len(value)
        limits = self._pool.limits
        if self._headers > limits.response_headers or self._head_bytes > limits.response_head_bytes:
            raise ValueError("too many headers")
        lower = name.lower()
        if lower in _DROPPED:
            if lower == b"content-length":
                self.content_length = int(value)
            elif lower == b"connection":
                self._nominated = value
            elif lower == b"transfer-encoding":
                if self._chunked or value.strip().lower() != b"chunked":
                    raise ValueError("a transfer encoding that is not chunked")
                self._chunked = True
            return
        if lower in _KEPT:
            self.kept[lower] = value
        self.lines.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if status < 100 or self._head_bytes > self._pool.limits.response_head_bytes:
            raise ValueError("not a status, or too long a head")
        if status < 200 and status != 101:
            self._interim += 1
            if self._interim > _INTERIM_MAX:
                raise ValueError("too many interim replies")
            self.lines.clear()
            self.kept.clear()
            self.reason = b""
            self._headers = 0
            return
        self.status = status
        self._keep_alive = parser.should_keep_alive()
        self._head_done = True
        if self._nominated is not None and self._nominated.lower() not in (b"keep-alive", b"close"):
            drop = {token.strip().lower() for token in self._nominated.split(b",")}
            self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in drop]
        bodyless = self._no_body or status in (204, 304)
        if self._no_body:
            self._complete = True  # llhttp would wait for the body that the headers speak of
        self._close_framed = not bodyless and not self._chunked and self.content_length < 0

    def on_body(self, data: bytes) -> None:
        if not self._complete:  # else it belongs to an answer that nobody asked for
            self._parts.append(data)

    def on_message_complete(self) -> None:
        if self._head_done:
            self._complete = True

    # ---------------------------------------------------------------------------------------------------------------

    def _upgrade(self, rest: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        if self.status != 101:
            self._fail(Outcome.INVALID)
            return
        self.upgraded = True
        self.deadline_at = NEVER
        exchange.response_data(self, True, rest, False)

    def _fail(self, outcome: Outcome) -> None:
        exchange = self.exchange
        self.abort()
        if exchange is not None:
            exchange.upstream_lost(self, outcome)
