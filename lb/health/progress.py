"""Progress-based health: a replica that holds requests and gives no token is hung, whatever its health page says."""

from __future__ import annotations

from lb.effects import Ticket
from lb.ledger import Entry
from lb.replica import Replica
from lb.settings import HealthSettings

LATE_FACTOR = 3.0
"""A first token or answer later than this multiple of its prediction is missing, not slow."""
UNLEARNED_S = 60.0
"""Least silence while the speed model rests on its prior: a model on a CPU may take a minute for a prompt."""
_LEARNED = 8
"""Observations from which the model's predictions are trusted with an accusation."""


SILENT_S = 2.0
"""Silence that is worth remembering, and lateness beyond `LATE_FACTOR` after which a request that lived through it is
missed: longer than pauses of a garbage collector or of a busy host."""


def silent(replica: Replica, now: float, settings: HealthSettings) -> bool:
    """Whether streams run on `replica`, no prompt should be holding them up, and no token comes."""
    if replica.in_flight <= replica.unary:
        return False
    return now - max(replica.progress_at, replica.free_at) > _allowed_s(replica, SILENT_S, settings)


def unanswered(replica: Replica) -> list[Ticket]:
    """Streams on `replica` without a first byte: another one can still take them.

    Answers in one piece are not among them. Their progress cannot be seen, and one that is merely long would be begun
    again elsewhere.
    """
    return [ticket for ticket in replica.tickets if ticket.info.stream and not ticket.first_byte_at]


def lost(replica: Replica, now: float) -> list[Ticket]:
    """Streams that a replica no longer knows of, although it works: it swallowed them while it hung.

    Such a stream was there in a silence, and its first byte is missing `LATE_FACTOR` times over, had no cache helped
    with any prompt. And either one that was sent later has been served, or tokens come and the replica itself says that
    nothing waits.
    """
    if not replica.waiting:
        return []
    load, pace, silent_at = replica.load, replica.pace, replica.silent_at
    none_waits = (
        load is not None
        and load.waiting == 0.0
        and replica.load_at > silent_at
        and now - replica.progress_at <= SILENT_S
    )
    found: list[Ticket] = []
    late: list[Ticket] = []
    whole_s = 0.0
    for ticket in replica.tickets:
        if ticket.first_byte_at and ticket.info.stream:
            found += late
            late = []
        elif ticket.routed_at <= silent_at:
            entry = ticket.core
            assert isinstance(entry, Entry)
            if entry.waits_prefill:
                tokens = entry.prompt
                whole_s += pace.prefill_s + tokens * (pace.token_s + tokens * pace.token2_s)
                if now - ticket.routed_at > SILENT_S + LATE_FACTOR * (entry.ahead_s + whole_s):
                    late.append(ticket)
    return found + late if none_waits else found


def hung(replica: Replica, now: float, settings: HealthSettings) -> str | None:
    """Why `replica` is taken for hung, or None.

    Silence alone is no proof: a long prompt silences a whole replica while it is computed. So either a stream that
    had begun is silent although every prompt sent should have been computed `LATE_FACTOR` times over, or an answer is
    overdue by that factor.
    """
    if not replica.tickets:
        return None
    allowed = _allowed_s(replica, settings.progress_min_s, settings)
    if now - replica.progress_at <= allowed:
        return None
    last = max(replica.progress_at, max(ticket.progress_at for ticket in replica.tickets))
    oldest = next(iter(replica.tickets))
    silent = now - max(last, oldest.routed_at)
    if silent <= allowed:
        return None
    prompts_s = max(0.0, replica.free_at - oldest.routed_at) * LATE_FACTOR
    for ticket in replica.tickets:
        if ticket.first_byte_at and ticket.info.stream:
            if silent > prompts_s:
                return f"no token from any request for {silent:.0f} s"
        elif now - ticket.routed_at > LATE_FACTOR * ticket.predicted_s + allowed:
            return f"no answer for {silent:.0f} s"
    return None


def _allowed_s(replica: Replica, least_s: float, settings: HealthSettings) -> float:
    """Silence that is no sign of anything."""
    known = replica.speed.coefficients
    if known.first_tokens + known.steps < _LEARNED:
        least_s = max(least_s, UNLEARNED_S)
    return max(least_s, settings.progress_steps * replica.speed.step_s(replica.in_flight, replica.kv_tokens))
