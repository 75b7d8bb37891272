"""Start-up times of replicas: lognormal, by scenario, the same draws per ordinal for every policy."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log

from autoscaler.fleet import Stage

_Z95 = 1.6448536269514722


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a start goes through."""

    name: str
    p50_s: float
    p95_s: float
    stock_out_ratio: float = 0.0
    """Share of starts for which no node is to be had for `stock_out_s`."""
    stock_out_s: float = 1800.0
    node_share: float = 0.0
    """Share of the time until the node is there; its GPUs follow later."""

    def draw(self, seed: int, ordinal: int) -> float:
        """Seconds of the start with this ordinal."""
        rng = random.Random((seed << 20) ^ (ordinal * 2_654_435_761))
        sigma = log(self.p95_s / self.p50_s) / _Z95 if self.p95_s > self.p50_s else 0.0
        total = exp(log(self.p50_s) + sigma * rng.gauss(0.0, 1.0)) if self.p50_s > 0.0 else 0.0
        if rng.random() < self.stock_out_ratio:
            total += self.stock_out_s
        return total

    def stages(self, asked_at: float, total_s: float) -> Mapping[Stage, float]:
        """Instants of the milestones of a start."""
        node = asked_at + self.node_share * total_s
        left = asked_at + total_s - node
        return {
            Stage.REQUESTED: asked_at,
            Stage.NODE: node,
            Stage.GPU: node + 0.1 * left * bool(self.node_share),
            Stage.IMAGE: node + 0.3 * left,
            Stage.WEIGHTS: node + 0.9 * left,
            Stage.WARM: node + left,
        }


SCENARIOS = {
    "warm": Scenario("warm", 30.0, 60.0),
    "node": Scenario("node", 100.0, 240.0),
    "new-node": Scenario("new-node", 270.0, 600.0, node_share=0.5),
    "scarce": Scenario("scarce", 270.0, 600.0, stock_out_ratio=0.05, node_share=0.5),
}
"""Node warm and image cached; node present; new node; new node that is sometimes not to be had."""
