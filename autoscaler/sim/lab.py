"""Experiments: one plant, one load, any policy by name, either engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.decide.decision import Decision
from autoscaler.decide.outlook import Outlook
from autoscaler.policy.pools import PoolSettings
from autoscaler.sim.calibration import capacity
from autoscaler.sim.disturbance import Disturbed
from autoscaler.sim.exact import ExactEngine
from autoscaler.sim.fast import FastEngine
from autoscaler.sim.oracle import MeanOracle, Oracle
from autoscaler.sim.outlooks import Outlooks
from autoscaler.sim.policies import BASELINES
from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policies.tidegate import Tidegate, pool_settings
from autoscaler.sim.policy import Policy
from autoscaler.sim.pool_model import PoolModel
from autoscaler.sim.score import Score
from autoscaler.sim.start_up import Scenario
from autoscaler.sim.sweep import at_misses, search
from autoscaler.sim.workload import Lengths, Load

KNOBS: Mapping[str, tuple[float, ...]] = {
    "max": (0.8, 0.9, 1.0, 1.1, 1.2),
    "oracle-0": (0.8, 0.9, 0.96, 1.02, 1.1),
    "oracle-L": (0.8, 0.9, 0.96, 1.02, 1.1),
    "oracle-mean": (0.7, 0.8, 0.9, 1.0, 1.1),
    "tidegate": (0.55, 0.75, 0.9, 0.97, 0.995),
}
"""First settings of a sweep, a search between them follows: shares of capacity to use, and for Tidegate the quantile of
demand to provide for."""
_BASELINE_KNOBS = (0.4, 0.55, 0.7, 0.85, 1.0, 1.1)
TIDEGATE = "tidegate"
ORACLES = ("oracle-0", "oracle-L", "oracle-mean")
EVERYONE = (*BASELINES, TIDEGATE, *ORACLES)
"""Whom one may name."""


@dataclass(frozen=True, slots=True)
class Lab:
    """What all runs of a comparison share."""

    model: PoolModel
    lengths: Lengths
    load: Load
    setting: Setting
    seed: int
    pool: PoolSettings | None = None
    """Tidegate's policy; None: the defaults."""
    outlooks: Mapping[int, Outlook] | None = None
    """What was forecast, by the second of the load at which it was made."""
    noise: int = 0
    """Other lengths for the same arrivals and start-up times, in the fast engine."""
    disturbed: bool = False
    """Policies get disturbed readings; oracles read nothing."""

    def policy(self, name: str, knob: float | None = None) -> Policy:
        """A policy by name. Tidegate without a knob finds its margin itself."""
        if self.disturbed and name not in ORACLES:
            return Disturbed(replace(self, disturbed=False).policy(name, knob), self.seed)
        if name == TIDEGATE:
            return self.tidegate(knob)
        chosen = 1.0 if knob is None else knob
        if name == MeanOracle.name:
            return MeanOracle(chosen, self.setting)
        if name in ORACLES:
            return Oracle(chosen, self.setting, instant=name == "oracle-0")
        return BASELINES[name](chosen, self.setting)

    def tidegate(self, quantile: float | None = None, pool: PoolSettings | None = None) -> Tidegate:
        settings = pool_settings(self.setting, pool or self.pool)
        if quantile is not None:
            predictive = settings.predictive.model_copy(update={"quantile": quantile})
            settings = settings.model_copy(update={"predictive": predictive})
        return Tidegate(settings, self.setting, self.outlooks)

    def fast(self, policy: Policy, knob: float = 1.0, progress: Callable[[int], None] | None = None) -> Score:
        """Play with the fast engine."""
        engine = FastEngine(
            self.load, policy, self.model, self.setting.scenario, seed=self.seed,
            max_replicas=self.setting.max_replicas, noise=self.noise,
        )  # fmt: skip
        return engine.play(progress, knob)

    def exact(self, policy: Policy, knob: float = 1.0, progress: Callable[[int], None] | None = None) -> Score:
        """Play with the exact engine."""
        engine = ExactEngine(
            self.load, self.lengths, policy, self.model.replica, self.setting.scenario, seed=self.seed,
            max_replicas=self.setting.max_replicas,
        )  # fmt: skip
        return engine.play(progress, knob)

    def sweep(
        self, name: str, target: float, *, rounds: int = 3, progress: Callable[[int], None] | None = None
    ) -> list[Score]:
        """Runs of one policy with different knobs, closer together around the target share of misses."""

        def run(knob: float) -> Score:
            return self.fast(self.policy(name, knob), knob, progress)

        return search(run, KNOBS.get(name, _BASELINE_KNOBS), target, rounds)


def lab_for(
    model: PoolModel,
    lengths: Lengths,
    load_at: Callable[[float | None], Load],
    scenario: Scenario,
    *,
    peak: int | None,
    max_replicas: int | None,
    objective: float,
    seed: int,
    pool: PoolSettings | None = None,
    outlooks: Outlooks | None = None,
) -> Lab:
    """A lab whose load peaks at what `peak` replicas serve (None: as it is). `load_at(peak_per_s)` draws the load;
    `outlooks` are forecasts of the same series."""
    per_replica, running = capacity(model, peak or 8, objective)
    load = load_at(None if peak is None else peak * per_replica)
    size = peak if peak is not None else max(1, round(load.peak_per_s / per_replica + 0.5))
    most = max_replicas if max_replicas is not None else max(size + 1, round(1.25 * size))
    setting = Setting(per_replica, running, model.replica.max_running, size, most, scenario, load, objective)
    return Lab(model, lengths, load, setting, seed, pool, None if outlooks is None else outlooks.of(load))


def hours_at(scores: Sequence[Score], targets: Sequence[float]) -> list[float]:
    """GPU-hours at each share of misses."""
    return [at_misses(scores, target) for target in targets]


def said(decisions: Sequence[Decision]) -> dict[str, int]:
    """How often each source or limit decided."""
    counts: dict[str, int] = {}
    for decision in decisions:
        counts[decision.binding] = counts.get(decision.binding, 0) + 1
    return counts
