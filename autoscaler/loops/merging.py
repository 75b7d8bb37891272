"""Demand of several balancers made one: pure.

Totals of each balancer rise until it restarts or goes. Their differences are added up, so that the sum never falls and
never jumps, whoever comes and goes; what came while one could not be asked is left out, and the sum says that it is not
whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

from lb.views import ModelDemand

_TOTALS = (
    "offered_total", "rejected_total", "prompt_tokens_total", "output_tokens_total", "served_total", "missed_total",
)  # fmt: skip
HERE = ""
"""Name of this process's own balancer."""


@dataclass(slots=True)
class _Source:
    """One balancer."""

    at: float
    models: Mapping[str, ModelDemand]


@dataclass(frozen=True, slots=True)
class Merged:
    """Demand of all balancers that are known."""

    models: Mapping[str, ModelDemand]
    complete: bool
    """False: one of them was not heard of lately."""


@dataclass(slots=True)
class Merging:
    """What was heard of whom. `stale_s`: age from which a reading says nothing any more."""

    stale_s: float
    _sources: dict[str, _Source] = field(default_factory=dict)
    _sums: dict[str, dict[str, float]] = field(default_factory=dict)

    def take(self, source: str, models: Mapping[str, ModelDemand], now: float) -> None:
        """One balancer's demand."""
        before = self._sources.get(source)
        self._sources[source] = _Source(now, models)
        # A balancer that is new to us may be hours old: what it counted before is not of now.
        known = before is not None and now - before.at <= self.stale_s
        for model, seen in models.items():
            sums = self._sums.setdefault(model, dict.fromkeys(_TOTALS, 0.0))
            early = before.models.get(model) if before is not None else None
            if not known or (early is not None and seen.offered_total < early.offered_total):
                continue
            for name in _TOTALS:
                late, was = getattr(seen, name) or 0.0, (getattr(early, name) or 0.0) if early is not None else 0.0
                sums[name] += max(0.0, late - was)

    def keep(self, sources: Iterable[str]) -> None:
        """Those that exist; the others are gone and are missed by nobody."""
        wanted = {HERE, *sources}
        self._sources = {name: one for name, one in self._sources.items() if name in wanted}

    def merged(self, sources: Iterable[str], now: float) -> Merged:
        """The demand at `now` of this process and of `sources`, which are all that exist."""
        fresh = {name: one for name, one in self._sources.items() if now - one.at <= self.stale_s}
        models: dict[str, list[ModelDemand]] = {}
        for source in fresh.values():
            for model, seen in source.models.items():
                models.setdefault(model, []).append(seen)
        return Merged(
            {model: _one(model, seen, self._sums[model]) for model, seen in models.items()},
            all(name in fresh for name in (HERE, *sources)),
        )


def _one(model: str, seen: list[ModelDemand], sums: Mapping[str, float]) -> ModelDemand:
    """One model at all balancers. Work is added up, as each predicts its own share; quantiles are the worst."""
    first = seen[0]
    known = all(one.missed_total is not None for one in seen)
    return replace(
        first,
        offered_total=round(sums["offered_total"]),
        rejected_total=round(sums["rejected_total"]),
        prompt_tokens_total=sums["prompt_tokens_total"],
        output_tokens_total=sums["output_tokens_total"],
        served_total=round(sums["served_total"]),
        missed_total=round(sums["missed_total"]) if known else None,
        requests_per_s=sum(one.requests_per_s for one in seen),
        prompt_tokens_per_s=sum(one.prompt_tokens_per_s for one in seen),
        output_tokens_per_s=sum(one.output_tokens_per_s for one in seen),
        served_per_s=sum(one.served_per_s for one in seen),
        queued=sum(one.queued for one in seen),
        queue_age_s=max(one.queue_age_s for one in seen),
        held=sum(one.held for one in seen),
        in_flight=sum(one.in_flight for one in seen),
        replicas_ready=max(one.replicas_ready for one in seen),
        replicas_total=max(one.replicas_total for one in seen),
        outstanding_tokens=sum(one.outstanding_tokens for one in seen),
        backlog_s=sum(one.backlog_s for one in seen if isfinite(one.backlog_s)),
        first_token_p95_s=_worst(one.first_token_p95_s for one in seen),
        inter_token_p95_s=_worst(one.inter_token_p95_s for one in seen),
        latency_p95_s=_worst(one.latency_p95_s for one in seen),
    )


def _worst(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
