"""A reply on its way to the client: framing, the watch on a stream's end, and how it is cut so that it shows."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from lb.effects import Ticket
from lb.errors import Reason
from lb.proxy.reply import LAST_CHUNK, reply_head
from lb.request import Usage
from lb.surface import StreamEnd, Surface
from lb.surfaces.progress import closing, events_in

if TYPE_CHECKING:
    import asyncio


_TAIL_BYTES = 16_384
"""Enough for the last events of a stream and for the usage at the end of a document."""
_TAIL_READS = 6
"""The last content, the usage and `[DONE]` may come in a read each, with pings between them."""
_PROGRESS_EVENTS = 16
"""The balancer hears of a stream's progress after this many events: hearing of each would cost more than its relay."""
_DONE = b"data: [DONE]"
_STREAM_TYPES = frozenset({b"text/event-stream", b"application/x-ndjson"})


class StreamListener(Protocol):
    """Who hears how a stream goes on: the balancer."""

    def first_byte(self, ticket: Ticket, now: float) -> None:
        """The first token has come."""

    def progress(self, ticket: Ticket, now: float) -> None:
        """More have."""


class RelayContext(Protocol):
    """What a relay needs of the proxy."""

    @property
    def balancer(self) -> StreamListener: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def write(self, transport: asyncio.Transport, data: bytes, more: bytes = b"") -> None:
        """Send `data` and `more`, in order."""


class RelayClient(Protocol):
    """What it needs of the client's connection."""

    http11: bool
    transport: asyncio.Transport

    def close_after_flush(self) -> None:
        """Close when all is sent."""

    def reset(self) -> None:
        """Close so that the client sees that something is missing."""


class RelayReply(Protocol):
    """The head of the reply that is relayed."""

    status: int
    reason: bytes
    lines: list[bytes]
    kept: dict[bytes, bytes]
    content_length: int


class Relay:
    """Passes one reply on. Nothing is buffered here beyond the head and a tail of 16 KiB."""

    __slots__ = (
        "_chunked", "_client", "_context", "_held_head", "_measured", "_surface", "_tail", "close", "held",
        "started", "streaming",
    )  # fmt: skip

    def __init__(self, context: RelayContext, client: RelayClient, surface: Surface) -> None:
        self._context = context
        self._client = client
        self._surface = surface
        self.started = False
        """Whether the head is decided on: no other replica can be tried any more."""
        self.streaming = False
        """Whether the reply is a stream of events that can be read."""
        self.close = False
        self.held: list[bytes] | None = None
        """The pieces of an error reply that is held back until it is judged."""
        self._chunked = False
        self._measured = False
        self._held_head = b""
        self._tail: deque[bytes] = deque(maxlen=_TAIL_READS)

    def start(self, connection: RelayReply, request_id: str, close: bool, head_only: bool) -> None:
        """Fix the head; it goes out with the first bytes of the body."""
        self.started = True
        status, length = connection.status, connection.content_length
        if status in (204, 304) or head_only:
            framing = b"content-length: %d\r\n" % length if length >= 0 and status != 204 else b""
            self._measured = True
        elif length >= 0:
            framing = b"content-length: %d\r\n" % length
            self._measured = True
        elif self._client.http11:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        else:
            framing = b""
            close = True
        self.close = close
        kept = connection.kept
        if status == 200 and b"content-encoding" not in kept:
            self.streaming = kept.get(b"content-type", b"").partition(b";")[0].strip().lower() in _STREAM_TYPES
        self._held_head = reply_head(status, connection.reason, connection.lines, framing, request_id, close)

    def start_tunnel(self, connection: RelayReply, request_id: str) -> None:
        self.started = True
        framing = b"connection: Upgrade\r\nupgrade: websocket\r\n"
        self._write(reply_head(101, connection.reason, connection.lines, framing, request_id, False))

    def note_progress(self, ticket: Ticket, body: bytes) -> None:
        """Count the events of a stream that are progress; comments and pings are none."""
        events = events_in(body)
        if not events:
            return
        context = self._context
        now = ticket.progress_at = context.loop.time()
        before = ticket.events
        ticket.events = before + events
        if not ticket.first_byte_at:
            context.balancer.first_byte(ticket, now)
        elif before // _PROGRESS_EVENTS != ticket.events // _PROGRESS_EVENTS:
            context.balancer.progress(ticket, now)

    def truncated_by(self, body: bytes, complete: bool) -> bool:
        """Whether these bytes would end a stream cleanly that is not complete; they must then not be passed on.

        Remembers the tail of the reply as it goes.
        """
        if body:
            self._tail.append(body if len(body) <= _TAIL_BYTES else body[-_TAIL_BYTES:])
        if not self.streaming:
            return False
        done = self._done_at(body)
        if not (complete or done >= 0) or self._surface.stream_end(self._joined_tail()) is not StreamEnd.TRUNCATED:
            return False
        if body and done:
            self.pass_on(body if done < 0 else body[:done], complete=False)
        return True

    def _done_at(self, body: bytes) -> int:
        """Where `[DONE]` is as a line of its own: an answer may well speak of it. `body` is the last of the tail."""
        if body.startswith(_DONE) and (len(self._tail) == 1 or self._tail[-2].endswith(b"\n")):
            return 0
        at = body.find(b"\n" + _DONE)
        return at + 1 if at >= 0 else -1

    def stream(self, ticket: Ticket, body: bytes) -> bool:
        """The short way for what is in the middle of a stream, which is nearly all of it; False: take the other."""
        if self._held_head or not self._chunked or not self.streaming or len(body) > _TAIL_BYTES:
            return False
        if body.find(_DONE) >= 0:  # `in` first tries to take its left side for a number, at the price of an exception
            return False
        self._tail.append(body)
        ticket.bytes_out += len(body)
        self.note_progress(ticket, body)
        self._context.write(self._client.transport, b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def pass_on(self, body: bytes, complete: bool) -> None:
        """Send bytes of the reply, framed for the client."""
        head, self._held_head = self._held_head, b""
        if not self._chunked:
            if head or body:
                self._write(head + body)
        elif complete:
            self._write(b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body) if body else head + LAST_CHUNK)
        elif body:
            self._write(b"%b%x\r\n%b\r\n" % (head, len(body), body))

    def cut(self, reason: Reason, message: str) -> None:
        """End a reply that has begun in a way that no client can take for its proper end."""
        event = b""
        if self.streaming and not self._measured:
            border = closing(self._joined_tail(), self._surface.stream_format)
            event = border + self._surface.error_event(reason, message)
        head, self._held_head = self._held_head, b""
        if event and self._chunked:
            event = b"%x\r\n%b\r\n" % (len(event), event)
        if head or event:
            self._write(head + event)
        if self._chunked or self._measured:
            self._client.close_after_flush()
        else:
            self._client.reset()  # only a reset tells a reader of a reply without length that there was more

    def usage(self) -> Usage | None:
        """What the runtime said it has counted."""
        return self._surface.read_usage(self._joined_tail())

    def _joined_tail(self) -> bytes:
        return b"".join(self._tail)[-_TAIL_BYTES:]

    def _write(self, data: bytes) -> None:
        self._context.write(self._client.transport, data)


def whole_reply(status: int, lines: bytes, body: bytes, request_id: str, close: bool) -> bytes:
    """A complete reply. `lines` are its status line and headers without length, each with CRLF."""
    if status in (204, 304):
        return b"%bx-request-id: %b\r\n%b\r\n" % (lines, request_id.encode(), _CLOSE if close else b"")
    return b"%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b" % (
        lines,
        len(body),
        request_id.encode(),
        _CLOSE if close else b"",
        body,
    )


_CLOSE = b"connection: close\r\n"
