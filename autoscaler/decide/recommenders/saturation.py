"""More work on the replicas than they get done in time, by the balancer's own prediction."""

from __future__ import annotations

from math import ceil

from autoscaler.decide.observation import Quality
from autoscaler.decide.recommender import Proposal, Situation
from autoscaler.policy.pools import PoolSettings

_AGREES = 0.5
"""It agrees to a size at which the backlog would be under this share of the threshold (hysteresis)."""
_MOST = 2.0
"""Never more than twice what is ready at once: a backlog says that it is too little, not by how much."""


class Saturation:
    """Keeps no memory: a backlog is one by itself."""

    def __init__(self, settings: PoolSettings) -> None:
        self._threshold_s = settings.backlog_s

    def propose(self, situation: Situation) -> Proposal:
        ready = situation.ready
        backlog_s = situation.reading.get("backlog_s")
        if backlog_s is None:
            # No finite number while nothing is ready is not ignorance: there is work and nobody to do it.
            if not ready and (situation.reading.get("queued") or 0.0) > 0.0:
                return Proposal("saturation", 1.0, 1.0, "requests wait and no replica is ready")
            why = situation.reading.bad.get("backlog_s", Quality.MISSING)
            return Proposal("saturation", 0.0, None, f"predicted backlog is {why}")
        share = backlog_s / self._threshold_s
        if share > 1.0:
            want = ceil(ready * min(share, _MOST))
            return Proposal("saturation", want, want, f"backlog of {backlog_s:.0f} s is over {self._threshold_s:.0f} s")
        keep = ceil(ready * min(1.0, share / _AGREES))
        return Proposal("saturation", 0.0, keep, f"backlog of {backlog_s:.0f} s of {self._threshold_s:.0f} s")
