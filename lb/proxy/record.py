"""Records of requests for the observer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.effects import Outcome
from lb.errors import ProxyError, Reason
from lb.proxy.observer import RequestRecord
from lb.request import SurfaceName, Usage

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.head import Head

_NOTHING_COUNTED = Usage()


def record_of(
    exchange: Exchange, outcome: Outcome | None, reason: Reason | None, usage: Usage | None, now: float
) -> RequestRecord:
    """The record of an exchange that has just ended. Positional, as keywords would double its price."""
    info, head, ticket = exchange.info, exchange.plan.head, exchange.ticket
    usage = usage or _NOTHING_COUNTED
    received_at = exchange.received_at
    if ticket is None:
        return RequestRecord(
            info.id, head.method, head.path, exchange.client.address, info.surface, info.model, info.tenant,
            exchange.status, outcome, reason, None, "", 0, now - received_at, None, now - received_at,
            info.body_bytes, 0, 0, 0.0, 0.0, None, None, None, 0.0,
        )  # fmt: skip
    replica = ticket.replica
    return RequestRecord(
        info.id, head.method, head.path, exchange.client.address, info.surface, info.model, info.tenant,
        exchange.status, outcome, reason, replica.endpoint.id if replica is not None else None, ticket.reason,
        ticket.attempts, (ticket.routed_at or now) - received_at,
        ticket.first_byte_at - received_at if ticket.first_byte_at else None, now - received_at,
        info.body_bytes, ticket.bytes_out, ticket.events, ticket.prompt_tokens, ticket.output_tokens,
        usage.prompt_tokens, usage.output_tokens, usage.cached_tokens, ticket.predicted_s,
    )  # fmt: skip


def refusal(error: ProxyError, head: Head, client: str) -> RequestRecord:
    """The record of a request that was refused by its head alone."""
    return RequestRecord(
        "", head.method, head.path, client, SurfaceName(error.surface or SurfaceName.OTHER), None, "default",
        error.status, None, error.reason, None, "", 0, 0.0, None, 0.0, 0, 0, 0, 0.0, 0.0, None, None, None, 0.0,
    )  # fmt: skip
