"""Starts that the controller asked for, until they are seen, warm, failed or given up; and kinds that keep failing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoscaler.decide.lead_time import LeadTimes
from autoscaler.fleet import Phase, ReplicaFact, Stage
from autoscaler.policy.pools import PoolSettings

_MOST_REST = 8.0


@dataclass(slots=True)
class Start:
    """One replica that was asked for."""

    start_id: str
    kind: str
    asked_at: float
    """First time; the lead time counts from it."""
    repeated_at: float
    """Last time."""
    replica: str | None = None
    """The replica that came of it."""
    stages: dict[Stage, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Health:
    """Failures of a kind."""

    failures: int = 0
    rest_until: float = 0.0


class Starts:
    """The ledger of starts of one pool."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._count = 0
        self.open: dict[str, Start] = {}
        self.leads = {kind.name: LeadTimes(settings.start.p50_s, settings.start.p95_s) for kind in settings.kinds}
        self._health = {kind.name: _Health() for kind in settings.kinds}
        self._done: set[str] = set()
        """Replicas whose start is over, one way or another."""

    def name(self, epoch: str) -> str:
        """A name that no start of this pool had."""
        self._count += 1
        return f"{self._settings.name}-{epoch}{self._count}"

    def ask(self, start_id: str, kind: str, now: float) -> None:
        self.open[start_id] = Start(start_id, kind, now, now)

    def unseen(self) -> list[Start]:
        """Asked for, and not in any observation yet."""
        return [start for start in self.open.values() if start.replica is None]

    def overdue(self, now: float) -> list[Start]:
        """Unseen for so long that they should be asked for again."""
        return [one for one in self.unseen() if now - one.repeated_at >= self._settings.start.unseen_s]

    def observe(self, replicas: Sequence[ReplicaFact], now: float) -> None:
        """Match starts with replicas, learn from those that became warm, count those that failed."""
        by_start = {one.start_id: one for one in replicas if one.start_id is not None}
        known = {start.replica for start in self.open.values()}
        strangers = [
            one
            for one in replicas
            if one.start_id is None and one.phase is Phase.STARTING and one.id not in known and one.id not in self._done
        ]
        ids = {one.id: one for one in replicas}
        self._done &= ids.keys()
        for start in list(self.open.values()):
            fact = ids.get(start.replica) if start.replica is not None else by_start.get(start.start_id)
            if fact is None and start.replica is None:
                # Actuators that keep no names: the oldest open start of a kind is the first newcomer of that kind.
                fact = next((one for one in strangers if one.kind == start.kind), None)
                if fact is not None:
                    strangers.remove(fact)
            if fact is None:
                if start.replica is not None:
                    # It was there and is gone without having been warm.
                    del self.open[start.start_id]
                    self.failed(start.kind, now)
                continue
            start.replica = fact.id
            start.stages.update({stage: at for stage, at in fact.stages.items() if at <= now})
            if fact.phase is Phase.READY:
                self._warm(start, fact, now)
            elif fact.phase is not Phase.STARTING:
                del self.open[start.start_id]
                self._done.add(fact.id)
                if fact.phase is Phase.FAILED:
                    self.failed(start.kind, now)

    def _warm(self, start: Start, fact: ReplicaFact, now: float) -> None:
        del self.open[start.start_id]
        self._done.add(fact.id)
        ready_at = start.stages.get(Stage.WARM, fact.since_s if fact.since_s is not None else now)
        stages = {Stage.REQUESTED: start.asked_at, **start.stages, Stage.WARM: ready_at}
        stages[Stage.REQUESTED] = start.asked_at
        self.leads[start.kind].finished(ready_at - start.asked_at, stages)
        self._health[start.kind] = _Health()

    def given_up(self, start: Start, now: float) -> None:
        """It took too long, and is counted as a failure of its kind and as a bound of its lead time."""
        self.open.pop(start.start_id, None)
        if start.replica is not None:
            self._done.add(start.replica)
        self.leads[start.kind].given_up(now - start.asked_at)
        self.failed(start.kind, now)

    def cancelled(self, start_id: str) -> None:
        """No longer wanted: neither a failure nor a lesson."""
        start = self.open.pop(start_id, None)
        if start is not None and start.replica is not None:
            self._done.add(start.replica)

    def failed(self, kind: str, now: float) -> None:
        health = self._health.get(kind)
        if health is None:
            return
        health.failures += 1
        limits = self._settings.start
        over = health.failures - limits.failures
        if over >= 0:
            health.rest_until = now + limits.rest_s * min(_MOST_REST, 2.0**over)

    def resting(self, now: float) -> dict[str, float]:
        """Kinds that failed too often, and until when they rest."""
        return {name: one.rest_until for name, one in self._health.items() if one.rest_until > now}

    def give_up_s(self, kind: str) -> float:
        """Age at which a start is given up: the policy's, or three times what starts of this kind take."""
        return max(self._settings.start.give_up_s, 3.0 * self.leads[kind].total().p95_s)

    def ages_s(self, kind: str, now: float) -> list[float]:
        return [now - one.asked_at for one in self.open.values() if one.kind == kind]

    def state(self) -> dict[str, object]:
        opened = {one.start_id: [one.kind, one.asked_at, one.replica] for one in self.open.values()}
        return {"count": self._count, "open": opened, "leads": {name: one.state() for name, one in self.leads.items()}}

    def restore(self, state: Mapping[str, object]) -> None:
        """The reverse. Instants of open starts must be in the present clock."""
        count, opened, leads = state.get("count"), state.get("open"), state.get("leads")
        if isinstance(count, int):
            self._count = max(self._count, count)
        if isinstance(opened, Mapping):
            for start_id, (kind, asked_at, replica) in opened.items():
                if kind in self.leads:
                    self.open[start_id] = Start(start_id, kind, asked_at, asked_at, replica)
        if isinstance(leads, Mapping):
            for name, one in self.leads.items():
                if isinstance(leads.get(name), Mapping):
                    one.restore(leads[name])
