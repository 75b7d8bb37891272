"""The strategy `round-robin`: each in turn, whatever it has to do."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.roster import Roster
from lb.routing.weighing import Weighing


class RoundRobin:
    """One turn per roster, over the candidates of the moment."""

    scores = False

    def pick(
        self,
        candidates: Sequence[Replica],
        entry: Entry,
        info: RequestInfo,
        roster: Roster,
        weighing: Weighing,
        rng: random.Random,
        now: float,
    ) -> Replica:
        roster.turn += 1
        return candidates[roster.turn % len(candidates)]
