"""The strategy `random`."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.roster import Roster
from lb.routing.weighing import Weighing


class RandomChoice:
    """Uniform over the candidates."""

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
        return candidates[int(rng.random() * len(candidates))]
