"""The strategy `p2c`: two at random, the one with fewer requests in flight."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.roster import Roster
from lb.routing.weighing import Weighing


class TwoChoices:
    """min(in flight) of two different candidates, drawn uniformly."""

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
        count = len(candidates)
        first = int(rng.random() * count)
        second = (first + 1 + int(rng.random() * (count - 1))) % count if count > 1 else first
        one, other = candidates[first], candidates[second]
        return one if one.in_flight <= other.in_flight else other
