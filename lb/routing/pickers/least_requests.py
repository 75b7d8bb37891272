"""The strategy `least-requests`: the fewest requests in flight, ties at random (least_conn of nginx and HAProxy)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.roster import Roster
from lb.routing.weighing import Weighing


class LeastRequests:
    """min(in flight); a scan of the candidates."""

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
        fewest = min(replica.in_flight for replica in candidates)
        equal = [replica for replica in candidates if replica.in_flight == fewest]
        return equal[int(rng.random() * len(equal))]
