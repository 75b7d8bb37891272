"""The strategy `tidegate`: the least predicted cost, near-ties at random."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.roster import Roster
from lb.routing.weighing import Weighing

TIE_S = 0.001
TIE_RATIO = 0.002
"""Costs this close are equal: no prediction is that good, and several balancers with the same view must not all send
their burst to the same replica."""


class LeastCost:
    """The replica whose weighted shape and preferences cost the request least."""

    scores = True

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
        uncached, quad, output, context = entry.prompt, entry.quad, entry.output, entry.context
        wait_weight = weighing.wait_weight
        preferences = weighing.concerned(entry, info)
        best = float("inf")
        slack = TIE_S
        ties = 1
        chosen = candidates[0]
        for replica in candidates:
            shape = replica.shape
            now_s, token_s, token2_s, output_s, overlap_s, context_s, batch, left = shape
            wait = replica.free_at - now
            if wait < 0.0:
                wait = -wait if replica.waiting else 0.0
            cost = wait * wait_weight + now_s + uncached * token_s + quad * token2_s + output * output_s
            if left:
                steps = batch * output
                cost += (overlap_s + context_s * context) * steps * left / (steps + left)
            for _, weight, preference in preferences:
                cost += weight * preference.seconds(replica, shape, entry, info)
            if cost < best - slack:
                best = cost
                slack = TIE_S + TIE_RATIO * (cost if cost > 0.0 else -cost)
                chosen = replica
                ties = 1
            elif cost <= best + slack:
                ties += 1
                if rng.random() * ties < 1.0:
                    chosen = replica
        return chosen
