"""How one of the candidates is picked: the `strategy` of the policy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.roster import Roster
from lb.routing.weighing import Weighing


class Picker(Protocol):
    """One strategy."""

    scores: bool
    """Whether it reads the scorers' forms; if not, they are not kept up to date for it."""

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
        """One of `candidates` (never empty)."""
