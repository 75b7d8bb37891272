"""The extension point for whoever decides on the number of replicas in the plant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autoscaler.sim.roster import Roster


@dataclass(slots=True)
class Reading:
    """What a policy may see at one instant. Numbers can be missing (None) in the robustness variant."""

    now: float
    """Seconds from the start of what is played."""
    ready: int
    starting: int
    in_flight: float | None
    """Requests at replicas."""
    queued: float | None
    """Requests that wait for a slot."""
    requests_per_s: float | None
    """Offered, over the last minute."""
    served_per_s: float | None
    offered_total: float | None
    missed_total: float | None


class Policy(Protocol):
    """One policy. `tick_s` is how often it is asked."""

    name: str
    tick_s: float
    start: int
    """Replicas that it has at the beginning, all ready: what it would have for the demand of the first minute."""

    stops: bool
    """It ends drained replicas itself; False: they end when they are empty."""

    def tick(self, reading: Reading, roster: Roster) -> None:
        """Look, and start or remove replicas."""
        ...
