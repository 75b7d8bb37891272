"""One request from its offer to its end: queueing, dispatch, retries. It decides nothing about replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.effects import Abort, Effects, Outcome, Queued, Rejected, Routed, Ticket, Withdraw
from lb.errors import Reason
from lb.proxy.intake import Plan, common_lines, may_use, read_early
from lb.proxy.record import record_of
from lb.proxy.relay import Relay, whole_reply
from lb.proxy.reply import LAST_CHUNK, chunk, own_reply
from lb.proxy.upstream import UpstreamConnection
from lb.proxy.verdict import HELD_BODY_BYTES, failure_of, is_held, judge, retry_after_s
from lb.request import RequestInfo, Usage
from lb.settings import KeySettings
from lb.surfaces import SURFACES

if TYPE_CHECKING:
    from lb.proxy.client import ClientConnection
    from lb.proxy.context import ProxyContext

_JOIN_BYTES = 8192
"""Requests up to this size are joined into one buffer; to copy a longer body costs more than a second buffer."""
_USAGE_BYTES = 4096
"""The end of an unstreamed reply in which its usage is looked for."""


class Exchange:
    """One request. Its ticket is finished exactly once, by `_end`, whatever happens."""

    __slots__ = (
        "_common", "_context", "_fresh", "_key", "_relay", "_uploading", "body", "client", "connection",
        "done", "info", "length", "plan", "received_at", "status", "surface", "ticket",
    )  # fmt: skip

    def __init__(
        self,
        context: ProxyContext,
        client: ClientConnection,
        plan: Plan,
        info: RequestInfo,
        key: KeySettings | None,
        length: int,
    ) -> None:
        self._context = context
        self._key = key
        self.client = client
        self.plan = plan
        self.surface = plan.surface
        self.info = info
        self.length = length
        """The request's Content-Length; negative if it has none."""
        self.ticket: Ticket | None = None
        self.connection: UpstreamConnection | None = None
        self.status = 0
        self.done = False
        self._fresh = False
        self._relay: Relay | None = None
        self._uploading = False

    def begin(self, body: bytes, uploading: bool, now: float) -> None:
        """Offer the request. `body` is all of it, or its beginning while `uploading`."""
        self.body = body
        self.received_at = now
        self._common = b""
        context, info, plan = self._context, self.info, self.plan
        if uploading:
            self._uploading = True
            read_early(info, body, self.length)
        elif body:
            info.body_bytes = len(body)
            if b"content-encoding" not in plan.head.kept:
                plan.surface.read_request(body, info)
                if info.surface is not plan.route.surface:
                    self.surface = SURFACES[info.surface]  # two APIs share this path; the body told them apart
        context.requests += 1
        if self._key is not None and not may_use(self._key, info, body, uploading):
            self.status = 403
            self._end(None, Reason.FORBIDDEN, None)
            self._reply_error(403, Reason.FORBIDDEN, "this API key may not use that model", None)
            return
        decision = context.balancer.offer(info, now, self)
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
        """A drain's deadline has passed."""
        self._fail(Outcome.ABORTED, effect.reason)

    def on_withdraw(self, effect: Withdraw) -> None:
        """The replica hangs. Without room or budget elsewhere the request stays where it is."""
        if (silent := self.connection) is not None and not self.started and self._retry(Outcome.HUNG):
            silent.abort()

    def _dispatch(self) -> None:
        ticket = self.ticket
        assert ticket is not None
        assert ticket.replica is not None
        pool = self._context.pool(ticket.replica.endpoint)
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

    def connect_failed(self, outcome: Outcome) -> None:
        if not self.done:
            self._attempt_failed(outcome)

    def _send(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        context, head, body = self._context, self.plan.head, self.body
        if not self._common:
            size = self.length if self._uploading else len(body) if body or self.length == 0 else None
            trusted = context.settings.forwarding.trusted_proxies
            self._common = common_lines(self.plan, self.client, size, self.info.id, trusted)
        data = b"%b %b%b HTTP/1.1\r\n%b%b" % (
            head.method_bytes,
            connection.base_path,
            head.target,
            connection.host_line,
            self._common,
        )
        deadline_at = context.loop.time() + context.settings.timeouts.first_byte_s
        no_body = head.method == "HEAD"
        if self._uploading:
            connection.send(self, data, b"", no_body, deadline_at)
            self.body = b""
            self.upload(body, complete=False)
            self.client.upload_wanted()
        elif len(body) <= _JOIN_BYTES:
            connection.send(self, data + body, b"", no_body, deadline_at)
        else:
            connection.send(self, data, body, no_body, deadline_at)

    def upload(self, data: bytes, complete: bool) -> None:
        """More of a body that is too large to be held."""
        connection = self.connection
        if complete:
            self._uploading = False
        if connection is None:
            return
        framed = data if self.length >= 0 else chunk(data) + (LAST_CHUNK if complete else b"")
        if framed:
            self._context.write(connection.transport, framed)
        if complete:
            first_byte_s = self._context.settings.timeouts.first_byte_s
            self._context.deadlines.set(connection, self._context.loop.time() + first_byte_s)

    def upstream_writable(self, writable: bool) -> None:
        if self._uploading or self.client.tunnelling:
            self.client.reading(writable)

    def client_writable(self, writable: bool) -> None:
        if self.connection is not None:
            self.connection.resume() if writable else self.connection.pause()

    def response_whole(self, connection: UpstreamConnection, lines: bytes, body: bytes) -> None:
        """A complete reply with a known length, in one piece: how nearly all that is not streamed arrives."""
        status = self.status = connection.status
        if is_held(status) or self._uploading:
            self.response_data(connection, True, body, True)
            return
        context, ticket = self._context, self.ticket
        assert ticket is not None
        ticket.bytes_out += len(body)
        self.connection = None
        context.balancer.first_byte(ticket, context.loop.time())
        connection.release()
        plan = self.plan
        outcome = Outcome.OK if status < 400 else Outcome.CLIENT_ERROR
        usage = None
        if plan.route.generates and status < 400:
            usage = self.surface.read_usage(body[-_USAGE_BYTES:])
        close = not plan.head.keep_alive or context.draining
        context.write(self.client.transport, whole_reply(status, lines, body, self.info.id, close))
        self._end(outcome, None, usage)
        self.client.exchange_done(close)

    def response_data(self, connection: UpstreamConnection, head: bool, body: bytes, complete: bool) -> None:
        relay, ticket = self._relay, self.ticket
        assert ticket is not None
        if relay is not None and body and not (head or complete) and relay.stream(ticket, body):
            return
        if head:
            self.status = connection.status
            relay = self._relay = Relay(self._context, self.client, self.surface)
            if connection.upgraded:
                self._start_tunnel(connection, relay, body)
                return
            if is_held(connection.status):
                relay.held = []
            if self.client.stalled:
                connection.pause()
        assert relay is not None
        if relay.held is not None:
            self._hold(connection, relay, body, complete)
            return
        if not relay.started:
            if not body and not complete:
                return  # the head waits for something behind it: until then another replica can still be tried
            relay.start(connection, self.info.id, self._must_close(complete), self.plan.head.method == "HEAD")
        ticket.bytes_out += len(body)
        if not relay.streaming:
            if not ticket.first_byte_at:
                self._context.balancer.first_byte(ticket, self._context.loop.time())
        elif body:
            relay.note_progress(ticket, body)
        if relay.truncated_by(body, complete):
            self._fail(Outcome.TRUNCATED)
            return
        relay.pass_on(body, complete)
        if complete:
            self._complete(connection, judge(connection.status, b""))

    def _hold(self, connection: UpstreamConnection, relay: Relay, body: bytes, complete: bool) -> None:
        """Gather an error reply until it can be judged; then try elsewhere, or pass it on whole."""
        assert relay.held is not None
        relay.held.append(body)
        text = b"".join(relay.held)
        if not complete and len(text) <= HELD_BODY_BYTES:
            return
        relay.held = None
        outcome = judge(connection.status, text)
        if complete and self._retry(outcome, connection.status, retry_after_s(connection.kept.get(b"retry-after"))):
            connection.release()
            return
        relay.start(connection, self.info.id, self._must_close(complete), self.plan.head.method == "HEAD")
        relay.pass_on(text, complete)
        if complete:
            self._complete(connection, outcome)

    def _complete(self, connection: UpstreamConnection, outcome: Outcome) -> None:
        relay, uploading = self._relay, self._uploading
        assert relay is not None
        self.connection = None
        if uploading:
            connection.abort()
        else:
            connection.release()
        usage = relay.usage() if self.plan.route.generates and outcome is Outcome.OK else None
        self._end(outcome, None, usage)
        self.client.exchange_done(relay.close or uploading)

    def _must_close(self, complete: bool) -> bool:
        """Whether the client's connection ends with this reply."""
        return not self.plan.head.keep_alive or self._context.draining or (complete and self._uploading)

    @property
    def started(self) -> bool:
        """Whether something of a replica's reply is on its way to the client."""
        return self._relay is not None and self._relay.started

    @property
    def _unrepeatable(self) -> bool:
        """Whether body bytes are gone that nobody has any more."""
        return self._uploading or self.client.upload_began

    def upstream_lost(self, connection: UpstreamConnection, outcome: Outcome) -> None:
        if self.done:
            return
        self.connection = None
        if self.client.tunnelling and self.started:
            self._end(Outcome.OK, None, None)
            self.client.close_after_flush()
            return
        stale = connection.reused and connection.received_bytes == 0 and outcome is Outcome.RESET
        if stale and not self._fresh and not self._unrepeatable:
            self._fresh = True
            self._dispatch()
            return
        self._attempt_failed(outcome)

    def _attempt_failed(self, outcome: Outcome) -> None:
        if self.started or not self._retry(outcome):
            self._fail(outcome)

    def _retry(self, outcome: Outcome, status: int = 0, retry_after: float | None = None) -> bool:
        """Offer the request again; False if it stays with the failure at hand."""
        if self._unrepeatable or self.client.tunnelling:
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
        context.gateway.arm()
        if isinstance(decision, Routed):
            self._dispatch()
        elif isinstance(decision, Rejected):
            context.loop.call_soon(self.on_rejected, decision)  # after the failed connection is done with
        return True

    def _fail(self, outcome: Outcome, why: Reason | None = None) -> None:
        """End the request with an error of ours: as a reply if nothing was sent, else as a cut that shows."""
        if self.done:
            return
        reason, status, message = failure_of(outcome, why)
        self._free()
        if not self.started:
            self.status = status
        self._end(outcome, reason, None)
        if self._relay is not None and self._relay.started:
            self._relay.cut(reason, message)
        else:
            self._reply_error(status, reason, message, None)

    def client_gone(self, stalled: bool = False) -> None:
        """The client has left, or takes nothing any more: the replica is freed at once."""
        if self.done:
            return
        self._free()
        if not (started := self.started):
            self.status = 499
        tunnel_end = self.client.tunnelling and started
        outcome = Outcome.WRITE_STALLED if stalled else Outcome.OK if tunnel_end else Outcome.CLIENT_CLOSED
        self._end(outcome, None, None)

    def cancel(self) -> None:
        """The shutdown's grace has passed."""
        self._fail(Outcome.ABORTED, Reason.DRAINING)

    def _free(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()

    def _reply_error(self, status: int, reason: Reason, message: str, retry_after: float | None) -> None:
        body = self.surface.error_body(status, reason, message)
        head = self.plan.head
        close = not head.keep_alive or self._uploading or self._context.draining
        no_body = head.method == "HEAD"
        self.client.answer(own_reply(status, body, self.info.id, close, retry_after, no_body), close)

    def _end(self, outcome: Outcome | None, reason: Reason | None, usage: Usage | None) -> None:
        """Finish the ticket and tell the observer; after this nothing of the exchange happens any more."""
        self.done = True
        context, ticket = self._context, self.ticket
        context.requests -= 1
        now = context.loop.time()
        effects: Effects = ()
        if ticket is not None:
            ticket.owner = None  # else the two would keep each other until the garbage collector runs
            if outcome is not None:
                effects = context.balancer.finish(ticket, outcome, now, status=self.status, usage=usage)
        context.observer.finished(record_of(self, outcome, reason, usage, now))
        if effects:
            context.gateway.apply(effects)
        if context.draining and not context.requests:
            context.idle.set()

    def _start_tunnel(self, connection: UpstreamConnection, relay: Relay, rest: bytes) -> None:
        if not self.client.tunnelling:
            self._fail(Outcome.INVALID)
            return
        assert self.ticket is not None
        self._context.balancer.first_byte(self.ticket, self._context.loop.time())
        relay.start_tunnel(connection, self.info.id)
        self.client.tunnel()
        self.tunnel_data(rest)

    def tunnel_data(self, data: bytes) -> None:
        """From the replica to the client."""
        if self.ticket is not None and data:
            self.ticket.bytes_out += len(data)
            self._context.write(self.client.transport, data)

    def tunnel_upload(self, data: bytes) -> None:
        """From the client to the replica."""
        if self.connection is not None:
            self._context.write(self.connection.transport, data)
