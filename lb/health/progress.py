"""Progress-based health: a replica that holds requests and gives no token is hung, whatever its health page says."""

from __future__ import annotations

from lb.replica import Replica
from lb.settings import HealthSettings

LATE_FACTOR = 3.0
"""A first token or answer later than this multiple of its prediction is missing, not slow."""
UNLEARNED_S = 60.0
"""Least silence while the speed model rests on its prior: a model on a CPU may take a minute for a prompt."""
_LEARNED = 8
"""Observations from which the model's predictions are trusted with an accusation."""


def hung(replica: Replica, now: float, settings: HealthSettings) -> str | None:
    """Why `replica` is taken for hung, or None.

    Silence alone is no proof: a long prompt silences a whole replica while it is computed. So either a stream that
    had begun is silent although every prompt sent should have been computed `LATE_FACTOR` times over, or an answer is
    overdue by that factor.
    """
    if not replica.tickets:
        return None
    known = replica.speed.coefficients
    step_s = replica.speed.step_s(replica.in_flight, replica.kv_tokens)
    allowed = max(settings.progress_min_s, settings.progress_steps * step_s)
    if known.first_tokens + known.steps < _LEARNED:
        allowed = max(allowed, UNLEARNED_S)
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
