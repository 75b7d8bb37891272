"""One request from its offer to its end: queueing, dispatch, retries, relay. It decides nothing about replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.effects import Abort, Outcome, Queued, Rejected, Routed, Ticket
from lb.errors import Reason
from lb.proxy.record import record_of
from lb.proxy.relay import Relay
from lb.proxy.upstream import UpstreamConnection
from lb.proxy.verdict import HELD_BODY_BYTES, is_held, judge, retry_after_s
from lb.request import RequestInfo, Usage
from lb.surface import Route, Surface

if TYPE_CHECKING:
    from lb.proxy.client import ClientConnection
    from lb.proxy.context import ProxyContext
    from lb.proxy.head import Head

_JOIN_BYTES = 65_536
"""Requests up to this size go out in one write; copying a larger body costs more than a second write."""
_PROGRESS_EVENTS = 16
"""The balancer hears of a stream's progress after this many events, as hearing of each would cost more than its relay."""

_FAILURES: dict[Outcome, tuple[Reason, int, str]] = {
    Outcome.CONNECT_FAILED: (Reason.UPSTREAM_CONNECT, 502, "the replica could not be reached"),
    Outcome.CONNECT_TIMEOUT: (Reason.UPSTREAM_CONNECT, 504, "the replica could not be reached in time"),
    Outcome.RESET: (Reason.UPSTREAM_RESET, 502, "the replica closed the connection before its answer was complete"),
    Outcome.FIRST_BYTE_TIMEOUT: (Reason.UPSTREAM_TIMEOUT, 504, "the replica did not begin to answer in time"),
    Outcome.IDLE_TIMEOUT: (Reason.UPSTREAM_TIMEOUT, 504, "the replica fell silent"),
    Outcome.INVALID: (Reason.UPSTREAM_INVALID, 502, "the replica's answer was not valid HTTP"),
    Outcome.TRUNCATED: (Reason.UPSTREAM_TRUNCATED, 502, "the replica ended the stream before the answer was complete"),
    Outcome.ABORTED: (Reason.INTERNAL, 503, "the request was ended by the proxy"),
}


class Exchange:
    """One request. Its ticket is finished exactly once, by `_finish`, whatever happens."""

    __slots__ = (
        "_common", "_context", "_fresh", "_held", "_uploading", "body", "client", "connection", "done", "head", "info",
        "received_at", "relay", "route", "started_at", "status", "surface", "ticket",
    )  # fmt: skip

    def __init__(
        self,
        context: ProxyContext,
        client: ClientConnection,
        head: Head,
        route: Route,
        info: RequestInfo,
        surface: Surface,
        body: bytes,
        uploading: bool,
    ) -> None:
        self._context = context
        self.client = client
        self.head = head
        self.route = route
        self.info = info
        self.surface = surface
        self.body = body
        """The whole body, or what is there of it while `uploading`."""
        self._uploading = uploading
        self._common = b""
        self.connection: UpstreamConnection | None = None
        self.ticket: Ticket | None = None
        self.relay = Relay(client, surface, info)
        self.status = 0
        self.done = False
        self._fresh = False
        self._held: list[bytes] | None = None
        self.started_at = 0.0
        self.received_at = client.received_at

    # from offer to dispatch ----------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        context = self._context
        self.started_at = now
        context.exchanges.add(self)
        decision = context.balancer.offer(self.info, now, self)
        if isinstance(decision, Routed):
            self.ticket = decision.ticket
            self._dispatch()
        elif isinstance(decision, Queued):
            self.ticket = decision.ticket
            context.gateway.arm()
        else:
            self.on_rejected(decision)

    def on_routed(self, effect: Routed) -> None:
        if not self.done:
            self._dispatch()

    def on_rejected(self, effect: Rejected) -> None:
        """Refused at the door, or after a wait; there is no open ticket."""
        if self.done:
            return
        self.status = effect.status
        self._end(None, effect.reason, None)
        self._reply_error(effect.status, effect.reason, effect.message, effect.retry_after_s)

    def on_abort(self, effect: Abort) -> None:
        """A drain's deadline, or the grace of the shutdown, has passed."""
        self._fail(Outcome.ABORTED, effect.reason, 503, "the replica is being taken out of service")

    def _dispatch(self) -> None:
        assert self.ticket is not None
        assert self.ticket.replica is not None
        pool = self._context.pool(self.ticket.replica.endpoint)
        connection = None if self._fresh else pool.take()
        if connection is None:
            pool.connect(self)
        else:
            self._send(connection)

    def connected(self, connection: UpstreamConnection) -> None:
        if self.done:
            connection.abort()
        else:
            self._send(connection)

    def connect_failed(self, outcome: Outcome, reason: str) -> None:
        if not self.done:
            self._attempt_failed(outcome, reason)

    def _send(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        context = self._context
        endpoint = connection.endpoint
        head = self.head
        data = b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b" % (
            head.method.encode(),
            endpoint.base_path.encode(),
            head.target,
            endpoint.authority.encode(),
            self._common or self._common_lines(),
        )
        no_body = head.method == "HEAD"
        deadline_at = context.loop.time() + context.settings.timeouts.first_byte_s
        body = self.body
        if self._uploading:
            connection.send(self, data, no_body=no_body, deadline_at=deadline_at)
            self.body = b""
            self.upload(body)
            self.client.upload_wanted()
        elif len(body) <= _JOIN_BYTES:
            connection.send(self, data + body, no_body=no_body, deadline_at=deadline_at)
        else:
            connection.send(self, data, no_body=no_body, deadline_at=deadline_at)
            connection.transport.write(body)

    def _common_lines(self) -> bytes:
        """The head's lines after Host, the same for every attempt."""
        context, head = self._context, self.head
        lines = head.lines
        if context.authorization_line:
            lines = [*lines, context.authorization_line]
        elif context.forward_authorization:
            lines = [*lines, *(b"%b: %b\r\n" % pair for pair in head.auth)]
        if self.client.tunnelling:
            framing = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        elif self._uploading:
            known = head.content_length
            framing = b"Content-Length: %d\r\n" % known if known >= 0 else b"Transfer-Encoding: chunked\r\n"
        elif self.body or head.content_length == 0:
            framing = b"Content-Length: %d\r\n" % len(self.body)
        else:
            framing = b""
        self._common = b"%b%b%bX-Request-Id: %b\r\n\r\n" % (
            b"".join(lines),
            self.client.forwarded_lines(head),
            framing,
            self.info.id.encode(),
        )
        return self._common

    # the body of a large request, as it arrives --------------------------------------------------------------------

    def upload(self, data: bytes) -> None:
        """More of a body that is too large to be held."""
        if self.connection is None or not data:
            return
        if self.head.content_length < 0:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.connection.transport.write(data)

    def upload_done(self) -> None:
        self._uploading = False
        if self.connection is not None:
            if self.head.content_length < 0:
                self.connection.transport.write(b"0\r\n\r\n")
            timeouts = self._context.settings.timeouts
            self._context.deadlines.set(self.connection, self._context.loop.time() + timeouts.first_byte_s)

    def upstream_writable(self, writable: bool) -> None:
        if self._uploading or self.client.tunnelling:
            self.client.reading(writable)

    def client_writable(self, writable: bool) -> None:
        connection = self.connection
        if connection is not None:
            connection.resume() if writable else connection.pause()

    # the reply -----------------------------------------------------------------------------------------------------

    def response_data(self, connection: UpstreamConnection, head: bool, body: bytes, complete: bool) -> None:
        if head:
            self.status = connection.status
            if connection.upgraded:
                self._start_tunnel(connection, body)
                return
            if is_held(connection.status):
                self._held = []
            if self.client.stalled:
                connection.pause()
        if self._held is not None:
            self._hold(connection, body, complete)
            return
        relay = self.relay
        if not body and not complete and not relay.started:
            return  # the head waits for something behind it: until then another replica can still be tried
        ticket = self.ticket
        assert ticket is not None
        if not relay.started:
            relay.start(connection, self.info.id, self._must_close(complete), self.head.method == "HEAD")
        ticket.bytes_out += len(body)
        now = self._context.loop.time()
        if not relay.streaming:
            if not ticket.first_byte_at:
                self._context.balancer.first_byte(ticket, now)
        elif body:
            events = relay.events_in(body)
            if events:
                ticket.progress_at = now
                before = ticket.events
                ticket.events = before + events
                if not ticket.first_byte_at:
                    self._context.balancer.first_byte(ticket, now)
                elif before // _PROGRESS_EVENTS != ticket.events // _PROGRESS_EVENTS:
                    self._context.balancer.progress(ticket, now)
        if relay.truncated_by(body, complete):
            self._fail(Outcome.TRUNCATED)
            return
        relay.pass_on(body, complete)
        if complete:
            self._complete(connection, judge(connection.status, b""))

    def _hold(self, connection: UpstreamConnection, body: bytes, complete: bool) -> None:
        """Gather an error reply until it can be judged; then try elsewhere, or pass it on whole."""
        held = self._held
        assert held is not None
        held.append(body)
        text = b"".join(held)
        if not complete and len(text) <= HELD_BODY_BYTES:
            return
        self._held = None
        outcome = judge(connection.status, text)
        if complete and self._retry(outcome, connection.status, retry_after_s(connection.kept.get(b"retry-after"))):
            connection.release(reusable=True)
            return
        relay = self.relay
        relay.start(connection, self.info.id, self._must_close(complete), self.head.method == "HEAD")
        relay.pass_on(text, complete)
        if complete:
            self._complete(connection, outcome)

    def _complete(self, connection: UpstreamConnection, outcome: Outcome) -> None:
        uploading = self._uploading
        self.connection = None
        connection.release(reusable=not uploading)
        usage = self.relay.usage() if self.route.generates and outcome is Outcome.OK else None
        close = self.relay.close
        self._end(outcome, None, usage)
        self.client.exchange_done(close or uploading)

    def _must_close(self, complete: bool) -> bool:
        """Whether the client's connection ends with this reply."""
        return not self.head.keep_alive or self._context.draining or (complete and self._uploading)

    # failures ------------------------------------------------------------------------------------------------------

    def upstream_lost(self, connection: UpstreamConnection, outcome: Outcome) -> None:
        if self.done:
            return
        self.connection = None
        if self.client.tunnelling and self.relay.started:
            self._end(Outcome.OK, None, None)
            self.client.close_after_flush()
            return
        stale = connection.reused and connection.received_bytes == 0 and outcome is Outcome.RESET
        if stale and not self._fresh and not self._upload_began:
            self._fresh = True
            self._dispatch()
            return
        self._attempt_failed(outcome, "")

    @property
    def _upload_began(self) -> bool:
        """Whether body bytes are gone that nobody has any more."""
        return self._uploading or self.client.upload_began

    def _attempt_failed(self, outcome: Outcome, detail: str) -> None:
        if not self.relay.started and self._retry(outcome):
            return
        self._fail(outcome, detail=detail)

    def _retry(self, outcome: Outcome, status: int = 0, retry_after: float | None = None) -> bool:
        """Offer the request again; False if it stays with the failure at hand."""
        if self._upload_began or self.client.tunnelling:
            return False
        context, ticket = self._context, self.ticket
        assert ticket is not None
        decision = context.balancer.retry(
            ticket, outcome, context.loop.time(), status=status, retry_after_s=retry_after
        )
        if decision is None:
            return False
        self._fresh = False
        self.connection = None
        if isinstance(decision, Routed):
            self._dispatch()
        elif isinstance(decision, Queued):
            context.gateway.arm()
        else:
            # Deferred, as the failed connection is not released yet.
            context.loop.call_soon(self.on_rejected, decision)
        return True

    def _fail(
        self, outcome: Outcome, reason: Reason | None = None, status: int = 0, message: str = "", detail: str = ""
    ) -> None:
        """End the request with an error of ours: as a reply if nothing was sent, else as a cut that shows."""
        if self.done:
            return
        known_reason, known_status, known_message = _FAILURES.get(outcome, (Reason.INTERNAL, 502, "the request failed"))
        reason, status, message = reason or known_reason, status or known_status, message or known_message
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()
        started = self.relay.started
        if not started:
            self.status = status
        self._end(outcome, reason, None)
        if started:
            self.relay.cut(reason, message)
        else:
            self._reply_error(status, reason, message, None)

    def client_gone(self, stalled: bool = False) -> None:
        """The client has left, or takes nothing any more: the replica is freed at once."""
        if self.done:
            return
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()
        if not self.relay.started:
            self.status = 499
        tunnel_end = self.client.tunnelling and self.relay.started
        outcome = Outcome.WRITE_STALLED if stalled else Outcome.OK if tunnel_end else Outcome.CLIENT_CLOSED
        self._end(outcome, None, None)

    def _reply_error(self, status: int, reason: Reason, message: str, retry_after: float | None) -> None:
        body = self.surface.error_body(status, reason, message)
        close = not self.head.keep_alive or self._uploading or self._context.draining
        self.client.own_reply(status, body, self.info.id, close, retry_after, self.head.method == "HEAD")

    # the end -------------------------------------------------------------------------------------------------------

    def _end(self, outcome: Outcome | None, reason: Reason | None, usage: Usage | None) -> None:
        """Finish the ticket and tell the observer; after this nothing of the exchange happens any more."""
        self.done = True
        context, info, ticket = self._context, self.info, self.ticket
        now = context.loop.time()
        context.exchanges.discard(self)
        effects = ()
        if outcome is not None and ticket is not None:
            effects = context.balancer.finish(ticket, outcome, now, status=self.status, usage=usage)
        context.observer.finished(record_of(self, outcome, reason, usage, now))
        if effects:
            context.gateway.apply(effects)
        if context.draining and not context.exchanges:
            context.idle.set()

    # tunnels -------------------------------------------------------------------------------------------------------

    def _start_tunnel(self, connection: UpstreamConnection, rest: bytes) -> None:
        if not self.client.tunnelling:
            connection.release(reusable=False)
            self._fail(Outcome.INVALID)
            return
        assert self.ticket is not None
        self._context.balancer.first_byte(self.ticket, self._context.loop.time())
        self.relay.start_tunnel(connection, self.info.id)
        if rest:
            self.client.write(rest)

    def tunnel_data(self, data: bytes) -> None:
        """From the replica to the client."""
        if self.ticket is not None:
            self.ticket.bytes_out += len(data)
        self.client.write(data)

    def tunnel_upload(self, data: bytes) -> None:
        """From the client to the replica."""
        if self.connection is not None:
            self.connection.transport.write(data)

    def cancel(self) -> None:
        """The shutdown's grace has passed."""
        self._fail(Outcome.ABORTED, Reason.DRAINING, 503, "the proxy is shutting down")
