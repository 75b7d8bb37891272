"""What each replica owes: sums over the requests that it has, kept one change at a time, exactly once each way.

Work is added before it is sent and taken off when it ends, so that a burst between two readings of the runtime spreads
by itself. Every function is O(1).
"""

from __future__ import annotations

from bisect import insort
from math import inf
from typing import TYPE_CHECKING

from lb.replica import Replica, ReplicaState

if TYPE_CHECKING:
    from lb.effects import Ticket
    from lb.pools import Pool

_TAIL_TOKENS = 8.0
"""An answer in one piece that is overdue still has this many tokens left, as nothing says that it ended."""


class Entry:
    """The balancer's own notes on one ticket: the request's quantities, and what was booked for it where."""

    __slots__ = (
        "ahead_s", "batch", "block_tokens", "cached", "context", "counted", "depths", "first_batch", "kv", "output",
        "pool", "predicted_s", "prefill_end", "prompt", "quad", "remaining", "retries", "server_errors", "session",
        "unary", "uncached", "waits_prefill",
    )  # fmt: skip

    def __init__(self, pool: Pool, prompt: float, output: float, stream: bool) -> None:
        self.pool = pool
        self.prompt = prompt
        self.output = output
        """Expected output tokens, all choices."""
        self.cached = 0.0
        self.uncached = prompt
        self.quad = prompt * prompt
        """n^2 - m^2, what attention costs over the uncached part."""
        self.context = prompt + 0.5 * output
        self.unary = not stream
        self.kv = 0.0
        self.remaining = 0.0
        self.counted = 0
        """Stream events taken into account."""
        self.waits_prefill = False
        self.prefill_end = 0.0
        self.ahead_s = 0.0
        """Predicted prefill of others before its own."""
        self.batch = 0.0
        """Other requests on the replica when it was sent."""
        self.first_batch = 0.0
        """The same at its first byte."""
        self.predicted_s = 0.0
        self.retries = 0
        """Attempts that reached a replica and failed."""
        self.server_errors: tuple[Replica, ...] = ()
        """Replicas that answered it with 5xx."""
        self.depths: list[tuple[int, int]] = NO_DEPTHS
        """Prefix holders as (mask, blocks), deepest first."""
        self.block_tokens = 0.0
        """Tokens in one of them."""
        self.session: Replica | None = None
        """Where its session was last."""


NO_DEPTHS: list[tuple[int, int]] = []


def touch(replica: Replica) -> None:
    """Note that the router's summary of `replica` is out of date."""
    if not replica.dirty:
        replica.dirty = True
        replica.changed.append(replica)


def book(replica: Replica, ticket: Ticket, entry: Entry, now: float) -> None:
    """The request is about to be sent to `replica`."""
    pace = replica.pace
    free_at = replica.free_at
    start = max(now, free_at)
    entry.ahead_s = start - now
    entry.batch = entry.first_batch = replica.in_flight + replica.foreign
    entry.prefill_end = replica.free_at = start + entry.uncached * pace.token_s + entry.quad * pace.token2_s
    entry.kv = entry.uncached + entry.output
    if not replica.in_flight:
        replica.progress_at = now
    replica.tickets[ticket] = None
    replica.in_flight += 1
    replica.kv_tokens += entry.kv
    replica.kv_left -= entry.kv
    replica.routed_total += 1
    replica.prompt_tokens_total += entry.prompt
    if entry.unary:
        replica.unary += 1
        replica.unary_tokens += entry.output
    else:
        entry.waits_prefill = True
        entry.remaining = entry.output
        entry.counted = 0
        replica.waiting += 1
        replica.waiting_tokens += entry.uncached
        replica.waiting_tokens2 += entry.quad
        replica.stream_tokens += entry.output
    touch(replica)


def first_byte(replica: Replica, entry: Entry, now: float) -> None:
    """A stream's first byte: its prompt is computed, and so the clock of the prompts behind it can be set right."""
    replica.progress_at = now
    entry.first_batch = replica.in_flight - 1 + replica.foreign
    if entry.waits_prefill:
        _leave_prefill(replica, entry, now)
        touch(replica)


def _leave_prefill(replica: Replica, entry: Entry, now: float) -> None:
    entry.waits_prefill = False
    replica.waiting -= 1
    if replica.waiting:
        replica.waiting_tokens = max(0.0, replica.waiting_tokens - entry.uncached)
        replica.waiting_tokens2 = max(0.0, replica.waiting_tokens2 - entry.quad)
    else:
        replica.waiting_tokens = replica.waiting_tokens2 = 0.0
    pace = replica.pace
    left_s = replica.waiting_tokens * pace.token_s + replica.waiting_tokens2 * pace.token2_s
    if replica.unary:
        # Prompts of unary requests are in the queue too and cannot be seen: move the clock by this one's error.
        replica.free_at = max(now + left_s, replica.free_at + now - entry.prefill_end)
    else:
        replica.free_at = now + left_s


def set_aside(replica: Replica, entry: Entry, now: float) -> None:
    """A stream whose first byte will not come holds up no prompt behind it."""
    if entry.waits_prefill:
        _leave_prefill(replica, entry, now)
        touch(replica)


def stream_left(replica: Replica, entry: Entry, remaining: float) -> None:
    """A stream has gone on; `remaining` output tokens are expected of it now."""
    replica.stream_tokens = max(0.0, replica.stream_tokens + remaining - entry.remaining)
    entry.remaining = remaining
    touch(replica)


def release(replica: Replica, ticket: Ticket, entry: Entry, now: float) -> None:
    """The request has ended at `replica`, one way or another."""
    del replica.tickets[ticket]
    replica.in_flight -= 1
    replica.kv_left += entry.kv
    touch(replica)
    if not replica.in_flight:
        _clear(replica, now)
        entry.waits_prefill = False
        return
    replica.kv_tokens = max(0.0, replica.kv_tokens - entry.kv)
    if entry.unary:
        replica.unary -= 1
        replica.unary_tokens *= replica.unary / (replica.unary + 1)
    else:
        replica.stream_tokens = max(0.0, replica.stream_tokens - entry.remaining)
        if entry.waits_prefill:
            _leave_prefill(replica, entry, now)
    entry.remaining = 0.0


def _clear(replica: Replica, now: float) -> None:
    """Nothing is in flight: whatever rounding left in the sums goes."""
    replica.waiting = replica.unary = 0
    replica.waiting_tokens = replica.waiting_tokens2 = 0.0
    replica.stream_tokens = replica.unary_tokens = replica.kv_tokens = 0.0
    replica.free_at = min(replica.free_at, now)


def decay(replica: Replica, now: float) -> None:
    """Let time work on what cannot be seen: unary answers grow by a token a step, abandoned ones end."""
    passed = now - replica.decayed_at
    replica.decayed_at = now
    abandoned = replica.abandoned
    while abandoned and abandoned[0] <= now:
        del abandoned[0]
    if replica.unary and passed > 0.0:
        pace = replica.pace
        step_s = pace.step_s + pace.running_s * replica.in_flight + pace.context_s * replica.kv_tokens
        left = replica.unary_tokens - replica.unary * passed / step_s
        replica.unary_tokens = max(left, min(replica.unary_tokens, _TAIL_TOKENS * replica.unary))


def abandon(replica: Replica, entry: Entry, routed_at: float, now: float) -> None:
    """The client of a unary request left and the runtime does not notice: it stays busy for the predicted rest."""
    end = routed_at + entry.predicted_s
    if end > now:
        insort(replica.abandoned, end)


def backlog_s(replica: Replica, now: float) -> float:
    """Predicted time until everything sent to `replica` has ended, without what others send it."""
    if not replica.in_flight:
        return 0.0
    pace = replica.pace
    step_s = pace.step_s + pace.running_s * replica.in_flight + pace.context_s * replica.kv_tokens
    return max(0.0, replica.free_at - now) + step_s * replica.output_tokens_left / replica.in_flight


def outstanding_tokens(replica: Replica) -> float:
    return replica.waiting_tokens + replica.output_tokens_left


def set_capacity(replica: Replica, default_max_in_flight: int, queue_depth: int, now: float) -> None:
    """Renew what 'room' means: slots and a short queue less what others use, within the operator's cap."""
    cap = replica.endpoint.max_in_flight
    slots = replica.slots
    if slots is not None:
        limit = slots + queue_depth
        full = replica.full_at
        if full is not None and full + queue_depth < limit:
            limit = max(1, int(full) + queue_depth)
    else:
        limit = default_max_in_flight
    limit = max(1, limit - int(replica.foreign) - len(replica.abandoned))
    replica.limit = limit if cap is None or limit < cap else cap
    if replica.overloaded_until > now:
        replica.limit = min(replica.limit, replica.in_flight)
    if replica.state is ReplicaState.TRIAL:
        replica.limit = replica.in_flight + 1 if replica.trial is None else 0
    load = replica.load
    if load is None or load.kv_capacity_tokens is None or load.kv_usage_ratio is None:
        replica.kv_left = inf
    else:
        used = load.kv_usage_ratio * load.kv_capacity_tokens
        foreign = used * replica.foreign / (replica.foreign + replica.in_flight) if replica.foreign > 0.0 else 0.0
        replica.kv_left = load.kv_capacity_tokens - foreign - replica.kv_tokens
    touch(replica)
