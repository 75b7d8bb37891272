"""What must hold between the pools of a policy."""

from __future__ import annotations

from collections.abc import Iterator

from autoscaler.policy.pools import ScalingSettings
from lb.decode import Finding, Loc


def pool_findings(scaling: ScalingSettings, at: Loc) -> Iterator[Finding]:
    """Demand for a model counts to one pool, so that no two are sized for the same requests."""
    owners: dict[str, int] = {}
    for index, pool in enumerate(scaling.pools):
        # The empty name stands for a pool of all other models.
        for model in pool.models or ("",):
            first = owners.setdefault(model, index)
            if first == index:
                continue
            other = scaling.pools[first].name
            what = (
                f"{model!r} is a model of pool {other!r} already" if model else f"pool {other!r} names no models, too"
            )
            yield Finding(
                (*at, "pools", index, "models"),
                f"{what}, and its demand can count to one pool only; name each pool's models",
                first=(*at, "pools", first, "models" if model else "name"),
            )
