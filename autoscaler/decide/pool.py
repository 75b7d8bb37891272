"""One pool: its memory, and the way from a reading to a decision."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from autoscaler.action import Action
from autoscaler.decide.budget import Spent, refusal
from autoscaler.decide.capacity import Capacity
from autoscaler.decide.decision import Decision
from autoscaler.decide.lead_time import LeadTime
from autoscaler.decide.mix import additions, price, units
from autoscaler.decide.observation import PoolDemand, Reading, read
from autoscaler.decide.outlook import Outlook
from autoscaler.decide.price import worthwhile_misses
from autoscaler.decide.recommender import Proposal, Situation
from autoscaler.decide.recommenders import RECOMMENDERS
from autoscaler.decide.recommenders.predictive import Predictive
from autoscaler.decide.stabilize import Stabilizer, Step
from autoscaler.decide.starts import Starts
from autoscaler.fleet import Phase, PoolFleet
from autoscaler.policy.pools import BudgetSettings, KindSettings, Mode, PoolSettings
from autoscaler.reconcile import Reconciler, supply_of

_CROWDED = 1.0
"""Demand over capacity after a removal beyond which it would miss the objective: capacity is what one replica serves
under the objective, so no further margin belongs here."""


class Pool:
    """Decides for one pool. `epoch` makes names of starts unique over the lives of a controller."""

    def __init__(self, settings: PoolSettings, epoch: str) -> None:
        self.settings = settings
        self.starts = Starts(settings)
        self.capacity = Capacity(settings.capacity.per_replica, settings.capacity.confidence)
        self.reconciler = Reconciler(settings, self.starts, epoch)
        self._recommenders = {name: make(settings) for name, make in RECOMMENDERS.items()}
        self._stabilizer = Stabilizer(settings)
        self._blind_since: float | None = None
        self._total_known: int | None = None
        """Supply when the fleet was last seen whole."""
        self._others: int | None = None
        self._others_until = -1.0
        self._kinds = {kind.name: kind for kind in settings.kinds}

    @property
    def predictive(self) -> Predictive:
        one = self._recommenders["predictive"]
        assert isinstance(one, Predictive)
        return one

    def tick(
        self,
        fleet: PoolFleet | None,
        demand: PoolDemand | None,
        outlook: Outlook | None,
        now: float,
        wall: float | None,
        budget: BudgetSettings,
        spent: Spent,
    ) -> tuple[Decision, list[Action]]:
        """One decision. `spent` is what all pools take; what this one adds is added to it."""
        settings = self.settings
        reading = read(demand, settings.capacity.unit, now, settings.stale_s)
        self.capacity.hint(reading.get("speed_per_s"))
        if fleet is None or not -1.0 <= now - fleet.at <= settings.stale_s:
            return self._unseen(reading, "the fleet is not known", now), []
        if not fleet.complete and self._total_known is None:
            return self._unseen(reading, "the fleet has not been seen whole yet", now), []
        self.starts.observe(fleet.replicas, now)
        leaving = self.reconciler.draining.until
        counts = supply_of(fleet, self.starts, leaving)
        supply = sum(counts.values())
        known = fleet.complete
        if known:
            self._total_known = supply
        else:
            supply = max(supply, self._total_known or 0)
        lead = self.lead(now)
        ready_units = self._ready_units(fleet, lead)
        ready = sum(one.phase is Phase.READY and one.id not in leaving for one in fleet.replicas)
        situation = self._situation(reading, ready_units, counts, supply, lead, outlook, now, wall)
        proposals = tuple(one.propose(situation) for one in self._recommenders.values())
        self._learn(reading, ready_units, now)
        step = self._decide(proposals, situation, supply, known, counts, fleet, now)
        actions: list[Action] = []
        if settings.mode is Mode.OWN:
            actions = self.reconciler.upkeep(fleet, now)
            step = self._act(step, counts, supply, fleet, budget, spent, actions, now)
        return self._decision(step, proposals, situation, ready, supply, now), actions

    # ------------------------------------------------------------------ what is known

    def lead(self, now: float) -> LeadTime:
        """Lead time of the kind that would be started next; the slowest of those in the pool, to be safe."""
        fits = [model.total(self.starts.ages_s(kind, now)) for kind, model in self.starts.leads.items()]
        return max(fits, key=lambda one: one.p95_s)

    def objective(self, per_replica: float | None) -> float:
        """Share of misses to allow: the policy's, or fewer if prices say that they cost more than replicas."""
        objective = self.settings.objective.misses
        miss = self.settings.price.miss
        if miss is None or per_replica is None or self.settings.capacity.unit != "requests":
            return objective
        cheapest = min(price(kind) / kind.speed for kind in self.settings.kinds)
        return min(objective, worthwhile_misses(cheapest, miss, per_replica))

    def _ready_units(self, fleet: PoolFleet, lead: LeadTime) -> float:
        leaving = self.reconciler.draining.until
        return sum(
            units(self._kinds[one.kind], lead.p95_s) if one.kind in self._kinds else 1.0
            for one in fleet.replicas
            if one.phase is Phase.READY and one.id not in leaving
        )

    def _situation(
        self, reading: Reading, ready: float, counts: Mapping[str, int], supply: int, lead: LeadTime,
        outlook: Outlook | None, now: float, wall: float | None,
    ) -> Situation:  # fmt: skip
        per_replica = self.capacity.per_replica
        total = sum(count * self._units(kind, lead) for kind, count in counts.items())
        total += supply - sum(counts.values())
        return Situation(
            settings=self.settings, reading=reading, ready=ready, supply=total, per_replica=per_replica, lead=lead,
            outlook=outlook, objective=self.objective(per_replica), now=now, wall=wall,
        )  # fmt: skip

    def _units(self, kind: str, lead: LeadTime) -> float:
        return units(self._kinds[kind], lead.p95_s) if kind in self._kinds else 1.0

    def _learn(self, reading: Reading, ready: float, now: float) -> None:
        served = reading.get("served_per_s") if self.settings.capacity.unit == "requests" else None
        missing = self.predictive.correction.missing
        self.capacity.observe(served, ready, reading.get("queued"), missing, now)

    # ------------------------------------------------------------------ what is decided

    def _decide(
        self, proposals: tuple[Proposal, ...], situation: Situation, supply: int, known: bool,
        counts: Mapping[str, int], fleet: PoolFleet, now: float,
    ) -> Step:  # fmt: skip
        human = self._human(fleet, supply, now)
        if human is not None:
            return human
        # Sources speak in reference replicas, the stabiliser in replicas: the same unless kinds differ in speed.
        scale = supply / situation.supply if supply and situation.supply > 0.0 else 1.0
        if scale != 1.0:
            counted = ("floor", "schedule")
            proposals = tuple(one if one.source in counted else one.scaled(scale) for one in proposals)
        return self._stabilizer.step(
            proposals, supply, known, self._consolidates(situation, supply), situation.lead.p50_s, now
        )

    def _human(self, fleet: PoolFleet, supply: int, now: float) -> Step | None:
        """Somebody else's number of replicas is respected for a while."""
        settings = self.settings
        if fleet.wanted_by_others is not None and fleet.wanted_by_others != self._others:
            self._others_until = now + settings.human_s
        self._others = fleet.wanted_by_others
        if self._others is None or now >= self._others_until:
            return None
        left = f"{self._others_until - now:.0f} s"
        return Step(supply, "others", f"somebody else set {self._others}, left alone for {left}", "nothing until then")

    def _consolidates(self, situation: Situation, supply: int) -> str:
        """Why one replica less would miss the objective; empty: it would not."""
        rate, unit = situation.reading.units_per_s, situation.per_replica
        correction = self.predictive.correction
        if correction.share is not None and correction.share > 10.0 * max(situation.objective, 0.001):
            return f"{100 * correction.share:.0f} % of requests miss the objective now"
        if rate is None or unit is None or supply <= 1:
            return ""
        left = situation.supply * (supply - 1) / supply
        if rate > _CROWDED * left * unit:
            return f"{rate:.3g}/s would be {rate / (left * unit):.2f} of what one replica less serves"
        return ""

    # ------------------------------------------------------------------ what is done

    def _act(
        self, step: Step, counts: Mapping[str, int], supply: int, fleet: PoolFleet, budget: BudgetSettings,
        spent: Spent, actions: list[Action], now: float,
    ) -> Step:  # fmt: skip
        change = step.desired - supply
        lead_s = self.lead(now).p50_s
        if change > 0:
            back = self.reconciler.undrain(fleet, change, step.reason)
            kinds, refused = self._affordable(counts, supply, change - len(back), fleet, budget, spent, now)
            actions += back
            actions += self.reconciler.start(kinds, fleet, step.reason, now)
            got = len(back) + len(kinds)
            self._total_known = supply + got
            self._stabilizer.done(got, lead_s, now)
            if got < change:
                return Step(supply + got, refused, f"{step.binding} wants {step.desired}: {step.reason}", refused)
        elif change < 0:
            removed = self.reconciler.remove(fleet, -change, step.reason, now)
            actions += removed
            self._stabilizer.done(-len(removed), lead_s, now)
            if len(removed) < -change:
                return Step(supply - len(removed), "protected", step.reason, "fewer without protected replicas")
        return step

    def _affordable(
        self, counts: Mapping[str, int], supply: int, wanted: int, fleet: PoolFleet, budget: BudgetSettings,
        spent: Spent, now: float,
    ) -> tuple[list[KindSettings], str]:  # fmt: skip
        """Kinds of up to `wanted` replicas to start, within budgets and what is to be had; and what stopped it."""
        if wanted <= 0:
            return [], ""
        resting = self.starts.resting(now)
        blocked = frozenset(resting) | fleet.full
        leads = {name: model.total().p95_s for name, model in self.starts.leads.items()}
        have = {name: count for name, count in counts.items() if name in self._kinds}
        room = self.settings.max_replicas - supply
        need = sum(units(self._kinds[name], leads[name]) * count for name, count in have.items()) + wanted
        chosen: list[KindSettings] = []
        refused = ""
        for kind in additions(self.settings.kinds, have, need, leads, blocked, self.settings.spot_share):
            if len(chosen) >= min(wanted, room):
                break
            refused = refusal(budget, spent, kind)
            if refused:
                break
            spent.add(kind)
            chosen.append(kind)
        if not refused and len(chosen) < wanted:
            refused = f"no kind is to be had ({', '.join(sorted(blocked))})" if blocked else "bounds of the kinds"
        return chosen, refused

    # ------------------------------------------------------------------ what is said

    def _unseen(self, reading: Reading, why: str, now: float) -> Decision:
        if self._blind_since is None:
            self._blind_since = now
        blind_s = now - self._blind_since
        fault = f"the fleet has not been seen for {blind_s:.0f} s" if blind_s > self.settings.down.blind_s else ""
        lead = self.lead(now)
        supply = self._total_known or 0
        return Decision(
            self.settings.name, now, self.settings.mode, 0, supply, supply, "fleet",
            why, "a fresh observation of the fleet", (), reading.units_per_s, None, "", 0.0,
            self.capacity.per_replica, lead.p50_s, lead.p95_s, 0.0, _bad(reading), fault,
        )  # fmt: skip

    def _decision(
        self, step: Step, proposals: tuple[Proposal, ...], situation: Situation, ready: int, supply: int, now: float
    ) -> Decision:
        lead, predictive = situation.lead, self.predictive
        demand_known = situation.reading.units_per_s is not None
        if demand_known:
            self._blind_since = None
        elif self._blind_since is None:
            self._blind_since = now
        faults = [f"{replica} does not finish its drain" for replica in self.reconciler.stuck(now)]
        faults += [f"kind {kind} keeps failing to start" for kind in self.starts.resting(now)]
        if self._blind_since is not None and now - self._blind_since > self.settings.down.blind_s:
            faults.append(f"demand has not been known for {now - self._blind_since:.0f} s; nothing is lowered")
        cheapest = min(price(kind) for kind in self.settings.kinds)
        return Decision(
            self.settings.name, now, self.settings.mode, ready, supply, step.desired, step.binding, step.reason,
            step.would_change, proposals, situation.reading.units_per_s, predictive.band, predictive.used,
            predictive.score, situation.per_replica, lead.p50_s, lead.p95_s, step.desired * cheapest,
            _bad(situation.reading), "; ".join(faults),
        )  # fmt: skip

    # ------------------------------------------------------------------ what a restart must not forget

    def recall(self, rates: list[tuple[float, float]], outlooks: Mapping[float, Outlook], now: float) -> None:
        """Learn margins and predictions from demand before the start: (instant, units per second), in order."""
        clean = [(at, rate) for at, rate in rates if isfinite(at) and isfinite(rate) and rate >= 0.0]
        reading = read(None, self.settings.capacity.unit, now, self.settings.stale_s)
        situation = self._situation(reading, 0.0, {}, 0, self.lead(now), None, now, None)
        self.predictive.recall(clean, situation, outlooks)

    def state(self) -> dict[str, object]:
        return {
            "starts": self.starts.state(),
            "capacity": self.capacity.state(),
            "predictive": self.predictive.state(),
            "draining": dict(self.reconciler.draining.until),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        parts = {name: state.get(name) for name in ("starts", "capacity", "predictive", "draining")}
        for name, target in (("starts", self.starts), ("capacity", self.capacity), ("predictive", self.predictive)):
            part = parts[name]
            if isinstance(part, Mapping):
                target.restore(part)
        draining = parts["draining"]
        if isinstance(draining, Mapping):
            self.reconciler.draining.until.update({str(one): float(at) for one, at in draining.items()})


def _bad(reading: Reading) -> tuple[str, ...]:
    return tuple(f"{name} {quality}" for name, quality in reading.bad.items())
