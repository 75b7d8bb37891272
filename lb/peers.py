"""What a replica that has shown nothing yet is believed to be: as fast as its peers.

Peers serve the same models and run the same runtime. Without them a newcomer would start from the prior of the
settings, look ten times slower than learned neighbours where that prior is ten times off, and get nothing to learn
from.
"""

from __future__ import annotations

from collections.abc import Iterable

from lb.cost.replica_model import Prior, ReplicaModel, typical
from lb.replica import Replica, ReplicaState, pace_of

_Kind = tuple[frozenset[str] | None, str | None]
"""(models, runtime); runtime None: any."""


def assume_speeds(newcomers: Iterable[Replica], everyone: Iterable[Replica]) -> list[Replica]:
    """Give each of `newcomers` that has not been observed the typical speed of its ready peers.

    Returns those whose speed this was. O(everyone), once for all newcomers.
    """
    untaught = [one for one in newcomers if one.speed.untaught]
    if not untaught:
        return []
    wanted = {_kind(one) for one in untaught}
    speeds: dict[_Kind, list[ReplicaModel]] = {kind: [] for kind in wanted}
    for peer in everyone:
        if peer.state is not ReplicaState.READY:
            continue
        models, runtime = _kind(peer)
        for kind in {(models, runtime), (models, None)} & wanted:
            speeds[kind].append(peer.speed)
    priors: dict[_Kind, Prior] = {kind: typical(models) for kind, models in speeds.items()}
    changed = [one for one in untaught if one.speed.assume(priors[_kind(one)])]
    for one in changed:
        one.pace = pace_of(one.speed)
    return changed


def _kind(replica: Replica) -> _Kind:
    return None if replica.models is None else frozenset(replica.models), replica.runtime
