"""The record of one decision, and its sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from autoscaler.decide.recommender import Proposal
from autoscaler.policy.pools import Mode


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything that led to one size of one pool. Sizes are replicas; demand is in the pool's unit per second."""

    pool: str
    at: float
    mode: Mode
    ready: int
    supply: int
    """Ready and starting."""
    desired: int
    binding: str
    """The source or limit that decided."""
    reason: str
    would_change: str
    proposals: tuple[Proposal, ...]
    demand: float | None
    band: tuple[float, float, float] | None
    """Expected demand: middle, what is provisioned for, and the cap."""
    predictor: str
    score: float
    """Margin as a normal score."""
    per_replica: float | None
    lead_p50_s: float
    lead_p95_s: float
    cost_per_hour: float
    """Of `desired`."""
    bad: tuple[str, ...]
    """Inputs that could not be used, with why."""
    fault: str = ""
    """A state that a person should look at."""

    @property
    def change(self) -> int:
        return self.desired - self.supply

    def record(self) -> dict[str, object]:
        """For the store; JSON."""
        return {**asdict(self), "mode": str(self.mode)}


def sentence(decision: Decision) -> str:
    """What is done and why, for the log."""
    change = decision.change
    size = f"{decision.supply} -> {decision.desired}" if change else f"{decision.supply}"
    pending = decision.supply - decision.ready
    parts = [f"{decision.pool}: {'up' if change > 0 else 'down' if change < 0 else 'hold'} {size}"]
    if pending > 0:
        parts[0] += f" ({decision.ready} ready, {pending} starting)"
    parts.append(f"{decision.binding}: {decision.reason}" if decision.reason else decision.binding)
    if decision.fault:
        parts.append(f"FAULT {decision.fault}")
    if decision.mode is not Mode.OWN:
        parts.append(f"{decision.mode} only, nothing is done")
    return "; ".join(parts)
