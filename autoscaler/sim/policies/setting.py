"""What every policy in the plant may know beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.sim.start_up import Scenario
from autoscaler.sim.workload import Load


@dataclass(frozen=True, slots=True)
class Setting:
    """The plant as policies see it. Of the load they may read what has passed."""

    per_replica: float
    """Requests a second that one replica serves with as many misses as the objective allows."""
    concurrency: float
    """Requests on a replica at that rate."""
    slots: int
    peak: int
    """Replicas that the highest demand takes."""
    max_replicas: int
    scenario: Scenario
    load: Load
    objective: float
    """Share of misses that is allowed."""

    def start(self, headroom: float = 1.3) -> int:
        """Replicas to begin with: for the demand of the last minutes of history, or of the first minute."""
        begin = self.load.start
        past = self.load.arrivals[max(0, begin - 300) : begin] if begin else self.load.arrivals[:60]
        need = headroom * float(past.mean()) / self.per_replica
        return max(1, min(self.max_replicas, int(need) + 1))
