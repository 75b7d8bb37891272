"""From a wanted size to actions, one step of each protocol a tick; repeating them does no harm.

A replica leaves in three steps: cordoned and drained, then (in-flight 0, or its deadline and a policy that says so)
stopped, then gone from the observation. A start that is late is given up; a draining replica that is wanted again is
taken back, which is faster than any start.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from math import inf

from autoscaler.action import Action, Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.decide.mix import price, unit_price
from autoscaler.decide.starts import Start, Starts
from autoscaler.fleet import Phase, PoolFleet, ReplicaFact
from autoscaler.policy.pools import KindSettings, PoolSettings


@dataclass(slots=True)
class Draining:
    """Replicas that this controller drains, and until when they may take."""

    until: dict[str, float] = field(default_factory=dict)


def supply_of(fleet: PoolFleet, starts: Starts, leaving: Container[str] = ()) -> dict[str, int]:
    """Replicas by kind that are or will be there: ready, starting, and asked for but not seen yet."""
    counts: dict[str, int] = {}
    for replica in fleet.replicas:
        if replica.phase in (Phase.READY, Phase.STARTING) and replica.id not in leaving:
            counts[replica.kind] = counts.get(replica.kind, 0) + 1
    for start in starts.unseen():
        counts[start.kind] = counts.get(start.kind, 0) + 1
    return counts


class Reconciler:
    """The protocols of one pool."""

    def __init__(self, settings: PoolSettings, starts: Starts, epoch: str) -> None:
        self._settings = settings
        self._starts = starts
        self._epoch = epoch
        """Part of every start's name, so that two lives of a controller do not use the same."""
        self.draining = Draining()
        self._stopping: set[str] = set()
        """Replicas that are told to end in this tick: it is too late to take them back."""

    # ------------------------------------------------------------------ every tick

    def upkeep(self, fleet: PoolFleet, now: float) -> list[Action]:
        """Go on with what is under way: drains, failures, late starts, starts that nobody has seen."""
        settings, starts = self._settings, self._starts
        total = self._total(fleet)
        actions: list[Action] = []
        self._stopping.clear()
        present = {replica.id for replica in fleet.replicas}
        self.draining.until = {
            one: at for one, at in self.draining.until.items() if one in present or not fleet.complete
        }
        for replica in fleet.replicas:
            if replica.phase is Phase.FAILED:
                actions.append(Stop(settings.name, replica.id, total, "it failed"))
            elif replica.phase in (Phase.DRAINING, Phase.READY) and replica.id in self.draining.until:
                self._drain_on(replica, total, now, actions)
        for start in list(starts.open.values()):
            if now - start.asked_at > starts.give_up_s(start.kind):
                total -= 1
                reason = f"not ready after {now - start.asked_at:.0f} s"
                actions.append(GiveUp(settings.name, start.start_id, start.replica, total, reason))
                starts.given_up(start, now)
        for start in starts.overdue(now):
            start.repeated_at = now
            actions.append(ScaleUp(settings.name, start.kind, (start.start_id,), total, "asked for and never seen"))
        return actions

    def _total(self, fleet: PoolFleet) -> int:
        return sum(supply_of(fleet, self._starts, self.draining.until).values())

    def _drain_on(self, replica: ReplicaFact, total: int, now: float, actions: list[Action]) -> None:
        until = self.draining.until[replica.id]
        name = self._settings.name
        if replica.phase is Phase.READY:
            # The cordon was lost on its way, or the balancer restarted.
            actions.append(Drain(name, replica.id, max(0.0, until - now), "still to be cordoned"))
        elif replica.in_flight == 0:
            self._stopping.add(replica.id)
            actions.append(Stop(name, replica.id, total, "drained"))
        elif now >= until and self._settings.down.on_deadline == "stop":
            self._stopping.add(replica.id)
            actions.append(Stop(name, replica.id, total, "its drain took too long"))

    def stuck(self, now: float) -> list[str]:
        """Replicas whose drain is past its deadline."""
        return [replica for replica, until in self.draining.until.items() if now >= until]

    # ------------------------------------------------------------------ changes

    def undrain(self, fleet: PoolFleet, count: int, reason: str) -> list[Action]:
        """Take back up to `count` replicas that this controller drains, those with most work left first: warmest."""
        # One that is still ready is about to be cordoned again; forgetting that is enough, but telling does no harm.
        phases = (Phase.DRAINING, Phase.READY)
        ours = self.draining.until.keys() - self._stopping
        back = [one for one in fleet.replicas if one.phase in phases and one.id in ours]
        back.sort(key=lambda one: (-(one.in_flight or 0), one.id))
        for replica in back[:count]:
            del self.draining.until[replica.id]
        return [Undrain(self._settings.name, replica.id, reason) for replica in back[:count]]

    def start(self, kinds: Iterable[KindSettings], fleet: PoolFleet, reason: str, now: float) -> list[Action]:
        """Ask for replicas of these kinds."""
        names: dict[str, list[str]] = {}
        for kind in kinds:
            start_id = self._starts.name(self._epoch)
            self._starts.ask(start_id, kind.name, now)
            names.setdefault(kind.name, []).append(start_id)
        total = self._total(fleet)
        return [ScaleUp(self._settings.name, kind, tuple(ids), total, reason) for kind, ids in names.items()]

    def remove(self, fleet: PoolFleet, count: int, reason: str, now: float) -> list[Action]:
        """Let up to `count` replicas go: starts first, then those that cost most and lose least."""
        settings, starts = self._settings, self._starts
        actions: list[Action] = []
        total = self._total(fleet)
        for start in sorted(starts.open.values(), key=lambda one: -one.asked_at)[:count]:
            if _protected(start, fleet):
                continue
            total -= 1
            actions.append(GiveUp(settings.name, start.start_id, start.replica, total, reason))
            starts.cancelled(start.start_id)
        for replica in self._victims(fleet)[: count - len(actions)]:
            self.draining.until[replica.id] = now + settings.down.drain_s
            total -= 1
            actions.append(Drain(settings.name, replica.id, settings.down.drain_s, reason))
        return actions

    def _victims(self, fleet: PoolFleet) -> list[ReplicaFact]:
        """Ready replicas, the best to remove first: dearest per capacity, least work left, least valuable cache."""
        prices = {
            kind.name: (unit_price(kind, self._starts.leads[kind.name].total().p95_s), price(kind))
            for kind in self._settings.kinds
        }

        def order(replica: ReplicaFact) -> tuple[float, float, float, float, str]:
            work = replica.work_left_s
            if work is None:
                work = inf if replica.in_flight is None else float(replica.in_flight)
            cost = prices.get(replica.kind, (0.0, 0.0))
            return -cost[0], -cost[1], work, replica.cache_value or 0.0, replica.id

        ready = [
            one
            for one in fleet.replicas
            if one.phase is Phase.READY and not one.protected and one.id not in self.draining.until
        ]
        return sorted(ready, key=order)


def _protected(start: Start, fleet: PoolFleet) -> bool:
    return any(one.id == start.replica and one.protected for one in fleet.replicas)
