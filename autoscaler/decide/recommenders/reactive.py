"""Thresholds on measured signals: above x for a time, and under y before less is agreed to."""

from __future__ import annotations

from math import ceil

from autoscaler.decide.recommender import Proposal, Situation
from autoscaler.policy.pools import PoolSettings, ReactiveRule

_FIELDS = {
    "gpu_utilization": "gpu_utilization",
    "kv_usage": "kv_usage",
    "first_token": "first_token_s",
    "inter_token": "inter_token_s",
    "latency": "latency_s",
}
_SHARED = frozenset({"gpu_utilization", "kv_usage", "queue_per_replica", "output_tokens"})
"""Signals that another replica takes its share of, so that the size follows from proportion; times do not."""
_HYSTERESIS = 0.7
_MOST = 2.0


class Reactive:
    """All rules of a pool; the highest counts."""

    def __init__(self, settings: PoolSettings) -> None:
        self._rules = [_Rule(rule, settings.down.blind_s) for rule in settings.rules]

    def propose(self, situation: Situation) -> Proposal:
        if not self._rules:
            return Proposal("reactive", 0.0, 0.0, "no rules")
        answers = [rule.propose(situation) for rule in self._rules]
        top = max(answers, key=lambda one: one.want)
        blind = next((one for one in answers if one.keep is None), None)
        keep = None if blind else max(one.keep or 0.0 for one in answers)
        reason = top.reason if top.want else (blind or max(answers, key=lambda one: one.keep or 0.0)).reason
        return Proposal("reactive", top.want, keep, reason)


class _Rule:
    def __init__(self, rule: ReactiveRule, blind_s: float) -> None:
        self._rule = rule
        self._below = _HYSTERESIS * rule.above if rule.below is None else rule.below
        self._blind_s = blind_s
        self._since: float | None = None
        """Since when it is above."""
        self._missing_since: float | None = None

    def propose(self, situation: Situation) -> Proposal:
        rule, ready, now = self._rule, situation.ready, situation.now
        value = self._value(situation)
        if value is None:
            if self._missing_since is None:
                self._missing_since = now
            if now - self._missing_since > self._blind_s:
                return Proposal(rule.signal, 0.0, 0.0, f"{rule.signal} is missing for long and no longer asked")
            return Proposal(rule.signal, 0.0, None, f"{rule.signal} is missing")
        self._missing_since = None
        if value <= rule.above:
            self._since = None
            return Proposal(rule.signal, 0.0, self._keep(value, ready, situation.supply), self._say(value, "of"))
        if self._since is None:
            self._since = now
        if now - self._since < rule.duration_s:
            return Proposal(rule.signal, 0.0, situation.supply, self._say(value, "just above"))
        factor = 1.0 + rule.step
        if rule.signal in _SHARED and rule.above > 0.0:
            factor = min(_MOST, max(factor, value / rule.above))
        want = max(ready + 1.0, float(ceil(ready * factor - 1e-9)))
        return Proposal(rule.signal, want, want, self._say(value, "above"))

    def _value(self, situation: Situation) -> float | None:
        reading, ready = situation.reading, situation.ready
        if self._rule.signal == "queue_per_replica":
            queued = reading.get("queued")
            return None if queued is None else queued / max(ready, 1.0)
        if self._rule.signal == "output_tokens":
            tokens = reading.get("output_tokens_per_s")
            return None if tokens is None else tokens / max(ready, 1.0)
        return reading.get(_FIELDS[self._rule.signal])

    def _keep(self, value: float, ready: float, supply: float) -> float:
        if value >= self._below:
            return supply
        if self._rule.signal in _SHARED and self._below > 0.0:
            return min(supply, float(ceil(ready * value / self._below)))
        return max(0.0, min(supply, ready) - 1.0)

    def _say(self, value: float, relation: str) -> str:
        return f"{self._rule.signal} {value:.3g} {relation} {self._rule.above:g}"
