"""Deadlines at the door: when waiting or starting is of no use any more."""

from __future__ import annotations

from lb.settings import AdmissionSettings

TOLERANCE_RATIO = 0.25
"""A request is refused for its deadline only if even three quarters of the predicted time is too long. A prediction is
off by about that much, a refusal is certain to fail the client, and an answer that comes late may still be in time."""


def misses_deadline(
    now: float, wait_s: float, service_s: float, deadline_at: float | None, tolerance_ratio: float = TOLERANCE_RATIO
) -> bool:
    """True when a request that waits `wait_s` and then takes `service_s` cannot end by `deadline_at`.

    An expired deadline is missed whatever the prediction says; no deadline is never missed.
    """
    if deadline_at is None:
        return False
    if now >= deadline_at:
        return True
    return now + (wait_s + service_s) * (1.0 - tolerance_ratio) > deadline_at


def wait_deadline(
    settings: AdmissionSettings,
    now: float,
    deadline_at: float | None,
    service_s: float,
    *,
    cold: bool,
    tolerance_ratio: float = TOLERANCE_RATIO,
) -> float:
    """Instant at which a waiting request gives up.

    That is after `queue_wait_s` (`cold_wait_s` when there is no replica at all), or earlier: when a start would come
    too late to end by the client's own deadline. Never before `now`.
    """
    patience_s = settings.cold_wait_s if cold else settings.queue_wait_s
    if deadline_at is None:
        return now + patience_s
    return max(now, min(now + patience_s, deadline_at - service_s * (1.0 - tolerance_ratio)))
