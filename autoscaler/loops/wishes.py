"""Which sizes of pools may be acted on by somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autoscaler.keda.wish import Wish
from autoscaler.policy.pools import Mode, PoolSettings
from autoscaler.store import StoredDecision

FRESH_TICKS = 3
"""A decision older than this many ticks is none: one may be late and one may fail."""


def wishes_of(
    pools: Iterable[PoolSettings], decisions: Mapping[str, StoredDecision], *, now: float, interval_s: float
) -> dict[str, Wish]:
    """Every pool's wish by its last decision. `now`: monotonic seconds, `interval_s`: between ticks."""
    return {pool.name: _wish(pool, decisions.get(pool.name), now, interval_s) for pool in pools}


def _wish(pool: PoolSettings, decision: StoredDecision | None, now: float, interval_s: float) -> Wish:
    if pool.mode is not Mode.ADVISE:
        return Wish(0, f"it is in mode {pool.mode}, and only in mode advise is its size for others to carry out")
    if decision is None:
        return Wish(0, "nothing has been decided yet")
    record = decision.record
    at, desired = record["at"], record["desired"]
    assert isinstance(at, float | int)
    assert isinstance(desired, int)
    if now - at > FRESH_TICKS * interval_s:
        return Wish(0, f"the last decision is {now - at:.0f} s old; the controller hangs, or another one leads")
    if record["binding"] == "fleet":
        return Wish(0, f"its replicas cannot be seen: {record['reason']}")
    if record["demand"] is None:
        # The size is then what the balancer sees running, which right after its start may be a part.
        return Wish(0, "its demand is not known")
    return Wish(desired)
