"""The least that the policy wants, and one replica where requests wait for the first."""

from __future__ import annotations

from autoscaler.decide.recommender import Proposal, Situation
from autoscaler.policy.pools import PoolSettings


class Floor:
    """The constant source."""

    def __init__(self, settings: PoolSettings) -> None:
        self._least = float(settings.min_replicas)

    def propose(self, situation: Situation) -> Proposal:
        held = situation.reading.get("held") or 0.0
        if held and self._least < 1.0:
            return Proposal("floor", 1.0, 1.0, f"{held:.0f} requests wait for a first replica")
        return Proposal("floor", self._least, self._least, f"min_replicas is {self._least:.0f}")
