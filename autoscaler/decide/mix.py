"""Which kinds of replica to add and to remove: cheapest per unit of capacity in, dearest out.

Capacity is counted in reference replicas. A spot replica counts less than its speed: reclaimed `r` times a day it is
away for `r` lead times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from autoscaler.policy.pools import KindSettings

_DAY_S = 86_400.0
_EDGE = 1e-9


def units(kind: KindSettings, lead_s: float) -> float:
    """Capacity to count on, in reference replicas."""
    if not kind.spot:
        return kind.speed
    return kind.speed * max(0.0, 1.0 - kind.reclaims_per_day * lead_s / _DAY_S)


def price(kind: KindSettings) -> float:
    """Money an hour for one replica."""
    return kind.gpus * kind.gpu_hour


def unit_price(kind: KindSettings, lead_s: float) -> float:
    """Money an hour per reference replica of capacity."""
    counted = units(kind, lead_s)
    return price(kind) / counted if counted > 0.0 else inf


def additions(
    kinds: Sequence[KindSettings],
    have: Mapping[str, int],
    need: float,
    leads_s: Mapping[str, float],
    blocked: frozenset[str],
    spot_share: float,
) -> list[KindSettings]:
    """Kinds of the replicas to add until capacity reaches `need`, the cheapest that is to be had first.

    `have`: replicas by kind, all that are or will be there. `blocked`: kinds of which none can be had now.
    """
    counts = {kind.name: have.get(kind.name, 0) for kind in kinds}
    total = sum(counts[kind.name] * units(kind, leads_s[kind.name]) for kind in kinds)
    spot = sum(counts[kind.name] * units(kind, leads_s[kind.name]) for kind in kinds if kind.spot)
    order = sorted(kinds, key=lambda kind: unit_price(kind, leads_s[kind.name]))
    added: list[KindSettings] = []
    while total < need - _EDGE:
        for kind in order:
            gives = units(kind, leads_s[kind.name])
            full = kind.max_replicas is not None and counts[kind.name] >= kind.max_replicas
            over = kind.spot and spot + gives > spot_share * max(need, total + gives) + _EDGE
            if gives > 0.0 and not full and not over and kind.name not in blocked:
                break
        else:
            return added
        added.append(kind)
        counts[kind.name] += 1
        total += gives
        spot += gives if kind.spot else 0.0
    return added
