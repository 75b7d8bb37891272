"""How long a start takes, learned by stage.

Times are taken as lognormal, as start-up times are by measurement (a product of many small factors, a long right
tail). Starts that have not finished tell that they take at least their age: they enter the maximum-likelihood fit by
expectation-maximisation for right-censored normals (Dempster, Laird, Rubin 1977), with the expected log time beyond
the age (Mills ratio). The policy's quantiles are a prior of a few pseudo-observations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import erfc, exp, isfinite, log, pi, sqrt

from autoscaler.fleet import STAGES, Stage

_Z95 = 1.6448536269514722
_PRIOR_WEIGHT = 3.0
_PRIOR_LEAST = 0.5
"""Pseudo-observations of the prior before any start, and after many: five real starts outweigh a wrong policy."""
_MEMORY = 50
"""Starts remembered per stage: weeks on a calm pool, a day on a lively one, and an image that grew shows in a few."""
_FADING = 0.95
"""Weight of a start relative to the one after it, so that half of the weight is in the last 14."""
_LEAST_SIGMA = 0.05
_MOST_SIGMA = 1.5
_ROUNDS = 12
"""Rounds of expectation-maximisation; with at most a few censored starts it has long converged."""
_LONGEST_S = 86_400.0
"""A start that took longer than a day was asleep, not starting."""


@dataclass(frozen=True, slots=True)
class LeadTime:
    """A lognormal time."""

    mu: float
    """Mean of the logarithm of seconds."""
    sigma: float
    count: int = 0
    """Finished starts that it rests on."""
    censored: int = 0
    """Unfinished ones."""

    def quantile(self, z: float) -> float:
        """Seconds at a normal score (0: the median)."""
        return exp(self.mu + z * self.sigma)

    @property
    def p50_s(self) -> float:
        return exp(self.mu)

    @property
    def p95_s(self) -> float:
        return exp(self.mu + _Z95 * self.sigma)

    def left_s(self, age_s: float) -> float:
        """Expected seconds left (of the logarithm's mean) for a start of this age."""
        if age_s <= 1.0:
            return self.p50_s
        return max(0.0, exp(_expected_log(log(age_s), self.mu, self.sigma)[0]) - age_s)


def lognormal(p50_s: float, p95_s: float) -> LeadTime:
    """From two quantiles in seconds, p50 <= p95."""
    return LeadTime(log(p50_s), min(_MOST_SIGMA, max(_LEAST_SIGMA, log(max(p95_s, p50_s) / p50_s) / _Z95)))


def _expected_log(bound: float, mu: float, sigma: float) -> tuple[float, float]:
    """Mean and second moment of a normal given that it is above `bound`."""
    alpha = (bound - mu) / sigma
    if alpha > 8.0:
        # Asymptotic Mills ratio; erfc has lost its digits out here.
        hazard = alpha + 1.0 / alpha
    else:
        hazard = sqrt(2.0 / pi) * exp(-0.5 * alpha * alpha) / erfc(alpha / sqrt(2.0))
    mean = mu + sigma * hazard
    return mean, sigma * sigma * (1.0 + alpha * hazard) + 2.0 * mu * mean - mu * mu


def fit(times_s: Sequence[float], ages_s: Iterable[float], prior: LeadTime) -> LeadTime:
    """Finished times and ages of unfinished starts (each oldest first), with a prior, to a lognormal."""
    weights = [_FADING**back for back in range(len(times_s) - 1, -1, -1)]
    logs = [log(time_s) for time_s in times_s]
    # Only ages past the median say something: most starts that are young will simply finish.
    bounds = [log(age_s) for age_s in ages_s if age_s > prior.p50_s]
    fades = [_FADING**back for back in range(len(bounds) - 1, -1, -1)]
    believed = max(_PRIOR_LEAST, _PRIOR_WEIGHT * _FADING ** len(times_s))
    total = believed + sum(weights) + sum(fades)
    first = believed * prior.mu + sum(w * x for w, x in zip(weights, logs, strict=True))
    second = believed * (prior.sigma**2 + prior.mu**2) + sum(w * x * x for w, x in zip(weights, logs, strict=True))
    mu, sigma = prior.mu, prior.sigma
    for _ in range(_ROUNDS if bounds else 1):
        sum1, sum2 = first, second
        for weight, bound in zip(fades, bounds, strict=True):
            mean, square = _expected_log(bound, mu, sigma)
            sum1 += weight * mean
            sum2 += weight * square
        mu = sum1 / total
        sigma = min(_MOST_SIGMA, max(_LEAST_SIGMA, sqrt(max(0.0, sum2 / total - mu * mu))))
    return LeadTime(mu, sigma, len(times_s), len(bounds))


class LeadTimes:
    """What is known of the starts of one kind of replica in one pool."""

    def __init__(self, p50_s: float, p95_s: float) -> None:
        self._prior = lognormal(p50_s, p95_s)
        self._totals: deque[float] = deque(maxlen=_MEMORY)
        self._stages: dict[Stage, deque[float]] = {stage: deque(maxlen=_MEMORY) for stage in STAGES[1:]}
        self._given_up: deque[float] = deque(maxlen=_MEMORY // 5)
        self._fit: LeadTime | None = None
        self._fit_ages: tuple[int, ...] = ()

    def finished(self, total_s: float, stages: Mapping[Stage, float]) -> None:
        """A start has become warm after `total_s`; `stages` are the instants of its milestones."""
        if not (isfinite(total_s) and 0.0 < total_s <= _LONGEST_S):
            return
        self._totals.append(total_s)
        self._fit = None
        known = [(stage, stages[stage]) for stage in STAGES if stage in stages and isfinite(stages[stage])]
        for (_, before), (stage, after) in pairwise(known):
            if 0.0 < after - before <= _LONGEST_S:
                self._stages[stage].append(after - before)

    def given_up(self, age_s: float) -> None:
        """A start was given up at this age: it would have taken longer. Remembered until newer ones displace it."""
        if isfinite(age_s) and age_s > 0.0:
            self._given_up.append(min(age_s, _LONGEST_S))
            self._fit = None

    def total(self, pending_ages_s: Sequence[float] = ()) -> LeadTime:
        """From the request to a warm replica. Ages of starts under way count as lower bounds."""
        # Rounded to 15 s, so that a start under way does not ask for a new fit at every tick.
        coarse = tuple(sorted(int(age / 15.0) for age in pending_ages_s if age > self._prior.p50_s))
        if self._fit is None or coarse != self._fit_ages:
            ages = [*self._given_up, *(15.0 * age for age in coarse if age)]
            self._fit = fit(tuple(self._totals), ages, self._prior)
            self._fit_ages = coarse
        return self._fit

    def by_stage(self) -> dict[Stage, LeadTime]:
        """Time spent to reach each milestone from the one before, for those that were ever seen."""
        shown = {}
        for stage, times in self._stages.items():
            if times:
                middle = sorted(times)[len(times) // 2]
                shown[stage] = fit(tuple(times), (), LeadTime(log(middle), self._prior.sigma))
        return shown

    def state(self) -> dict[str, object]:
        """What a restart must not forget; JSON."""
        return {
            "totals": list(self._totals),
            "given_up": list(self._given_up),
            "stages": {str(stage): list(times) for stage, times in self._stages.items()},
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """The reverse; numbers that make no sense are left out."""
        self._totals.extend(_times(state.get("totals")))
        self._given_up.extend(_times(state.get("given_up")))
        stages = state.get("stages")
        if isinstance(stages, Mapping):
            for stage, times in self._stages.items():
                times.extend(_times(stages.get(str(stage))))
        self._fit = None


def _times(value: object) -> list[float]:
    if not isinstance(value, list):
        return []
    return [float(one) for one in value if isinstance(one, int | float) and 0.0 < one <= _LONGEST_S]
