"""What must hold between the pools of a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from autoscaler.policy.pools import ScalingSettings
from lb.address import parse_address
from lb.decode import Finding, Loc
from lb.endpoint import parse_url
from lb.errors import SettingsError
from lb.secrets import check_reference


def pool_findings(scaling: ScalingSettings, at: Loc) -> Iterator[Finding]:
    """What is wrong with the pools, and with the balancers that they are sized by."""
    yield from _models(scaling, at)
    if scaling.keda is not None:
        yield from _attempt(partial(parse_address, scaling.keda.listen), (*at, "keda", "listen"))
    for index, one in enumerate(scaling.balancers):
        yield from _attempt(partial(parse_url, one.url), (*at, "balancers", index, "url"))
        if one.token is not None:
            yield from _attempt(partial(check_reference, one.token), (*at, "balancers", index, "token"))


def _attempt(check: Callable[[], object], loc: Loc) -> Iterator[Finding]:
    try:
        check()
    except SettingsError as error:
        yield Finding(loc, str(error))


def _models(scaling: ScalingSettings, at: Loc) -> Iterator[Finding]:
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
