"""Who is there, in which state, for which models: membership, transitions, drains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from lb.cost.replica_model import ReplicaModel
from lb.effects import Abort, Effect, ReplicaChanged
from lb.endpoint import Endpoint
from lb.errors import Reason
from lb.health.lifecycle import LifeEvent, next_state
from lb.health.outlier import may_eject
from lb.health.warmup import STEADY_COUNT, Ramp, WarmUpTime
from lb.ledger import set_capacity
from lb.peers import assume_speeds
from lb.pools import Pool, Pools
from lb.replica import GpuState, Replica, ReplicaState, pace_of
from lb.routing.pipeline import Router
from lb.runtime import ProbeStatus
from lb.settings import LbSettings

_UNTAUGHT_S = 60.0
"""Age of the lessons of a replica that has taught none: its prior is doubted, so that it is asked soon."""


class Fleet:
    """All replicas. Every change of state goes through `move`."""

    __slots__ = (
        "_abandons", "_any_model", "_changed", "_free", "_settings", "pools", "ramping", "replicas", "retired",
        "router", "warmup",
    )  # fmt: skip

    def __init__(
        self,
        settings: LbSettings,
        router: Router,
        changed: list[Replica],
        abandons: Mapping[str, bool],
        any_model: frozenset[str],
        now: float,
    ) -> None:
        self._settings = settings
        self._changed = changed
        self._abandons = abandons
        self._any_model = any_model
        self._free: list[int] = []
        """Bits of the prefix index that gone replicas left."""
        self.router = router
        self.replicas: dict[str, Replica] = {}
        """By id, as discovery lists them."""
        self.retired: list[Replica] = []
        """No longer listed, and not yet empty."""
        self.ramping: list[Replica] = []
        self.pools = Pools(now, settings.health.panic_ratio, settings.routing.shortlist)
        self.warmup = WarmUpTime(settings.health)

    def everyone(self) -> list[Replica]:
        return [*self.replicas.values(), *self.retired]

    # ------------------------------------------------------------------ membership

    def set_endpoints(self, endpoints: Iterable[Endpoint], now: float, effects: list[Effect]) -> list[Pool]:
        """Make the listed set the wanted one. Returns pools that are gone."""
        wanted: dict[str, Endpoint] = {}
        for endpoint in endpoints:
            wanted.setdefault(endpoint.id, endpoint)
        for id_, replica in list(self.replicas.items()):
            listed = wanted.get(id_)
            if listed is None or not _same_place(listed, replica.endpoint):
                del self.replicas[id_]
                replica.retired = True
                self.retired.append(replica)
                self.move(replica, LifeEvent.DRAIN, "no longer listed", now, effects)
        for id_, endpoint in wanted.items():
            known = self.replicas.get(id_)
            if known is not None:
                if known.endpoint != endpoint:
                    self._update(known, endpoint, now)
                continue
            back = next((one for one in self.retired if one.id == id_ and _same_place(endpoint, one.endpoint)), None)
            if back is None:
                self.replicas[id_] = self._join(endpoint, now, effects)
            else:
                self.retired.remove(back)
                back.retired = False
                self.replicas[id_] = back
                self._update(back, endpoint, now)
                self.undrain(back, "listed again", now, effects)
        for replica in list(self.retired):
            self.bury(replica, now, effects)
        return self._rebuild(now)

    def learn_runtime(self, replica: Replica, runtime: str, now: float) -> list[Pool]:
        """A probe has found out what it runs. Returns pools that are gone."""
        before = replica.any_model
        if runtime != replica.runtime:
            self.set_runtime(replica, runtime)
            self.assume_speeds([replica])
        return self._rebuild(now) if replica.any_model != before else []

    def learn_models(self, replica: Replica, models: tuple[str, ...], now: float) -> list[Pool]:
        """The runtime has said what it serves; an operator's list goes first."""
        if replica.endpoint.models or models == replica.models:
            return []
        replica.models = models
        self.assume_speeds([replica])
        return self._rebuild(now)

    def _join(self, endpoint: Endpoint, now: float, effects: list[Effect]) -> Replica:
        speed = ReplicaModel(self._settings.cost, endpoint.weight)
        index = self._free.pop() if self._free else len(self.replicas) + len(self.retired)
        replica = Replica(endpoint, speed, pace_of(speed), index=index, since=now, changed=self._changed)
        replica.taught_at = now - _UNTAUGHT_S
        replica.models = endpoint.models or None
        self.set_runtime(replica, None if endpoint.runtime == "auto" else endpoint.runtime)
        self.recount(replica, now)
        self.router.settle(replica)
        effects.append(ReplicaChanged(replica.id, "", str(replica.state), "listed"))
        return replica

    def _update(self, replica: Replica, endpoint: Endpoint, now: float) -> None:
        previous, replica.endpoint = replica.endpoint, endpoint
        if previous.models != endpoint.models:
            replica.models = endpoint.models or None
        if endpoint.runtime != "auto":
            self.set_runtime(replica, endpoint.runtime)
        self.recount(replica, now)
        self.router.settle(replica)

    def set_runtime(self, replica: Replica, runtime: str | None) -> None:
        replica.runtime = runtime
        replica.abandons = bool(runtime and self._abandons.get(runtime, False))
        # An operator who lists models means those.
        replica.any_model = runtime in self._any_model and not replica.endpoint.models

    def assume_speeds(self, newcomers: Iterable[Replica]) -> None:
        """Those that have shown nothing yet are taken for as fast as their peers."""
        for replica in assume_speeds(newcomers, self.replicas.values()):
            self.router.settle(replica)

    def _rebuild(self, now: float) -> list[Pool]:
        everyone = self.everyone()
        self.router.prefixes.resize(self._settings.routing.prefix_index_blocks, len(everyone))
        return self.pools.rebuild(everyone, now)

    def bury(self, replica: Replica, now: float, effects: list[Effect]) -> None:
        """A retired replica without requests is gone, and nothing of it is kept."""
        if not replica.retired or replica.in_flight or replica.state is not ReplicaState.DRAINING:
            return
        self.move(replica, LifeEvent.EMPTY, "empty", now, effects)
        self.retired.remove(replica)
        self.router.forget(replica)
        self._free.append(replica.index)
        for roster in replica.rosters:
            roster.members.remove(replica)

    # ------------------------------------------------------------------ states

    def move(self, replica: Replica, event: LifeEvent, reason: str, now: float, effects: list[Effect]) -> bool:
        """Let `event` happen to `replica`. False: it changes nothing in this state."""
        previous = replica.state
        state = next_state(previous, event)
        if state is None:
            return False
        away_since, replica.since = replica.since, now
        replica.state = state
        replica.reason = reason
        if state is ReplicaState.READY:
            self._warm_up(replica, previous, away_since, now)
            self.assume_speeds([replica])
        elif replica.ramp is not None:
            self.warm(replica)
        if previous is ReplicaState.TRIAL:
            replica.trial = None
        self.recount(replica, now)
        self.router.settle(replica)
        self.pools.refresh(replica)
        effects.append(ReplicaChanged(replica.id, str(previous), str(state), reason))
        return True

    def eject(self, replica: Replica, reason: str, now: float, effects: list[Effect]) -> bool:
        """Take a replica out for a time, unless too much of a pool would be out."""
        if next_state(replica.state, LifeEvent.EJECT) is None:
            return False
        health = self._settings.health
        for roster in replica.rosters:
            ejected = sum(one.state in (ReplicaState.EJECTED, ReplicaState.TRIAL) for one in roster.members)
            ejected -= replica.state is ReplicaState.TRIAL
            members = sum(not one.retired for one in roster.members)
            if not may_eject(ejected, members, health):
                return False
        until = replica.outlier.eject(now, health)
        return self.move(replica, LifeEvent.EJECT, f"{reason}; out for {until - now:g} s", now, effects)

    def _warm_up(self, replica: Replica, previous: ReplicaState, away_since: float, now: float) -> None:
        """Slow start, if somebody else is warm: at the beginning all are equally cold and share the load."""
        replica.outlier.healthy_since = now
        duration_s = self.warmup.duration_s
        if duration_s <= 0.0:
            return
        others = (one for roster in replica.rosters for one in roster.members if one is not replica)
        if any(_is_warm(other, away_since, duration_s, now) for other in others):
            # What has loaded is cold, also within the same process.
            was_warm = previous is not ReplicaState.JOINING and replica.speed.coefficients.first_tokens >= STEADY_COUNT
            tokens = replica.progress_tokens
            replica.ramp = Ramp(now, duration_s, tokens if was_warm and tokens else inf)
            self.ramping.append(replica)

    def warm(self, replica: Replica) -> None:
        """Its ramp is over, or of no more use."""
        replica.ramp = None
        if replica in self.ramping:
            self.ramping.remove(replica)

    def recount(self, replica: Replica, now: float) -> None:
        """Renew its limits."""
        admission = self._settings.admission
        set_capacity(replica, admission.default_max_in_flight, admission.queue_depth, now)

    # ------------------------------------------------------------------ drains

    def drain(self, replica: Replica, deadline_s: float | None, now: float, effects: list[Effect]) -> None:
        patience_s = self._settings.health.drain_s if deadline_s is None else deadline_s
        replica.drained = True
        self.move(replica, LifeEvent.DRAIN, "drained by an operator", now, effects)
        if replica.state is ReplicaState.DRAINING:
            replica.drain_at = now + patience_s if patience_s > 0.0 or deadline_s is not None else None

    def undrain(self, replica: Replica, reason: str, now: float, effects: list[Effect]) -> None:
        replica.drain_at = None
        replica.drained = False
        gpu = replica.gpu
        if gpu is not None and gpu.state is GpuState.DRAIN:
            replica.reason = gpu.reason
            return
        if not self.move(replica, LifeEvent.UNDRAIN, reason, now, effects):
            return
        if gpu is not None and gpu.state is GpuState.LOST:
            self.move(replica, LifeEvent.GPU_LOST, gpu.reason, now, effects)
        elif replica.probes.last is ProbeStatus.READY:
            self.move(replica, LifeEvent.UP, "its probes pass", now, effects)

    def enforce_drains(self, now: float, effects: list[Effect]) -> None:
        """End what still runs on replicas whose drain has lasted too long."""
        for replica in self.everyone():
            if replica.drain_at is not None and replica.drain_at <= now:
                replica.drain_at = None
                effects.extend(Abort(ticket, Reason.DRAIN_DEADLINE) for ticket in replica.tickets)

    def next_deadline(self) -> float:
        """The next instant at which time alone changes a state."""
        at = inf
        for replica in self.everyone():
            if replica.drain_at is not None and replica.drain_at < at:
                at = replica.drain_at
            if replica.state is ReplicaState.EJECTED and replica.outlier.ejected_until < at:
                at = replica.outlier.ejected_until
        return at

    def reconfigure(self, settings: LbSettings, now: float) -> None:
        self._settings = settings
        self.warmup.reconfigure(settings.health)
        self.pools.configure(settings.health.panic_ratio, settings.routing.shortlist)
        self.router.prefixes.resize(settings.routing.prefix_index_blocks, len(self.everyone()))
        for replica in self.everyone():
            self.recount(replica, now)
            self.router.settle(replica)


def _same_place(one: Endpoint, other: Endpoint) -> bool:
    return (one.host, one.port, one.tls, one.base_path) == (other.host, other.port, other.tls, other.base_path)


def _is_warm(other: Replica, away_since: float, duration_s: float, now: float) -> bool:
    """Whether `other` is warmer than a replica that is ready now and was not since `away_since`."""
    if other.state is not ReplicaState.READY or other.ramp is not None:
        return False
    if now - other.since >= duration_s or other.since < away_since:
        return True
    # As many answers as would end a ramp, and it has worked since it is ready.
    return other.speed.coefficients.first_tokens >= STEADY_COUNT and other.progress_at > other.since
