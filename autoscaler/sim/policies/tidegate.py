"""Tidegate's own controller in the plant: the same code as in production, its actions carried out by the roster."""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.action import Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.controller import Controller
from autoscaler.decide.decision import Decision
from autoscaler.decide.observation import PoolDemand
from autoscaler.decide.outlook import Outlook
from autoscaler.fleet import Phase, PoolFleet, ReplicaFact
from autoscaler.policy.pools import CapacitySettings, Mode, PoolSettings, ScalingSettings, StartSettings
from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policy import Reading
from autoscaler.sim.roster import Roster, SimReplica

_POOL = "pool"
_HISTORY_S = 60
_PHASES = {"starting": Phase.STARTING, "ready": Phase.READY, "draining": Phase.DRAINING, "gone": Phase.FAILED}


def pool_settings(setting: Setting, base: PoolSettings | None = None) -> PoolSettings:
    """A policy for the plant: `base` (None: the defaults) with the plant's size and what is known of it beforehand."""
    base = base or PoolSettings(name=_POOL)
    scenario = setting.scenario
    return base.model_copy(
        update={
            "name": _POOL,
            "mode": Mode.OWN,
            "min_replicas": 1,
            "max_replicas": setting.max_replicas,
            "capacity": CapacitySettings(per_replica=base.capacity.per_replica or setting.per_replica),
            "start": StartSettings(p50_s=max(scenario.p50_s, 1.0), p95_s=max(scenario.p95_s, 1.0)),
            "objective": base.objective.model_copy(update={"misses": setting.objective}),
        }
    )


class Tidegate:
    """Drives one pool. `outlooks`: what was forecast, by the second of the load at which it was made."""

    name = "tidegate"
    tick_s = 15.0
    stops = True

    def __init__(
        self,
        pool: PoolSettings,
        setting: Setting,
        outlooks: Mapping[int, Outlook] | None = None,
        name: str = "tidegate",
    ) -> None:
        self.name = name
        self.start = setting.start()
        self.controller = Controller(ScalingSettings(pools=(pool,)))
        self._load = setting.load
        self._outlooks = outlooks or {}
        self._outlook: Outlook | None = None
        self._facts: dict[int, ReplicaFact] = {}
        self.decisions: list[Decision] = []
        """Those that changed something."""
        self._recall()

    def _recall(self) -> None:
        """History is there before the first tick: a mean a minute, at instants before 0."""
        begin = self._load.start
        minutes = begin // _HISTORY_S
        if minutes:
            past = self._load.arrivals[begin - minutes * _HISTORY_S : begin].reshape(minutes, _HISTORY_S).mean(axis=1)
            rates = [(float((index + 1 - minutes) * _HISTORY_S), rate) for index, rate in enumerate(past.tolist())]
            known = {float(at - begin): outlook for at, outlook in self._outlooks.items() if at <= begin}
            self.controller.recall(_POOL, rates, known, 0.0)

    def tick(self, reading: Reading, roster: Roster) -> None:
        now = reading.now
        made = self._outlooks.get(self._load.start + int(now))
        if made is not None:
            self._outlook = made
        demand = PoolDemand(
            at=now, requests_per_s=reading.requests_per_s, in_flight=reading.in_flight, queued=reading.queued,
            held=0.0 if reading.ready else reading.queued, backlog_s=self._backlog(reading),
            offered_total=reading.offered_total, missed_total=reading.missed_total, served_per_s=reading.served_per_s,
        )  # fmt: skip
        fleet = PoolFleet(now, tuple(self._fact(one) for one in roster.alive.values()))
        forecast = {} if self._outlook is None else {_POOL: self._outlook}
        tick = self.controller.tick({_POOL: fleet}, {_POOL: demand}, forecast, now=now, wall=self._load.wall + now)
        if tick.actions:
            self._carry_out(tick.actions, roster, now)
            if tick.decisions[0].change:
                self.decisions.append(tick.decisions[0])

    @staticmethod
    def _backlog(reading: Reading) -> float | None:
        """Little's law: what is there over what leaves."""
        if reading.in_flight is None or reading.queued is None or not reading.served_per_s:
            return None if reading.served_per_s is None else 0.0
        return (reading.in_flight + reading.queued) / reading.served_per_s

    def _fact(self, replica: SimReplica) -> ReplicaFact:
        """Facts of replicas that have not changed are kept: there are dozens a tick."""
        known = self._facts.get(replica.ordinal)
        phase = _PHASES[replica.phase]
        in_flight = 0 if replica.in_flight <= 0.0 else max(1, round(replica.in_flight))
        if known is not None and known.phase is phase and known.in_flight == in_flight:
            return known
        fact = ReplicaFact(
            id=f"r{replica.ordinal}", phase=phase, start_id=replica.start_id, since_s=replica.since,
            in_flight=in_flight,
        )  # fmt: skip
        self._facts[replica.ordinal] = fact
        return fact

    def _carry_out(self, actions: tuple[object, ...], roster: Roster, now: float) -> None:
        before = roster.wanted
        for action in actions:
            match action:
                case ScaleUp(start_ids=start_ids):
                    names = {one.start_id for one in roster.alive.values()}
                    for start_id in start_ids:
                        if start_id not in names:
                            roster.start(now, start_id)
                case GiveUp(start_id=start_id):
                    found = next((one for one in roster.starting.values() if one.start_id == start_id), None)
                    if found is not None:
                        roster.cancel(found, now)
                case Drain(replica=id_):
                    one = roster.alive[int(id_[1:])]
                    if one.phase == "ready":
                        roster.drain(one, now)
                case Undrain(replica=id_):
                    one = roster.alive[int(id_[1:])]
                    if one.phase == "draining":
                        roster.take_back(one, now)
                case Stop(replica=id_):
                    one = roster.alive[int(id_[1:])]
                    roster.killed += round(one.in_flight)
                    self._facts.pop(one.ordinal, None)
                    roster.gone(one, now)
                case _:
                    raise TypeError(f"the plant does not know the action {action!r}")
        roster.note(before, now)
