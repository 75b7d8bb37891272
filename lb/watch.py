"""What others say of the replicas: readings of their load, probes, GPUs, and the passing of time."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite
from typing import Any

from lb.effects import Effect, Withdraw
from lb.fleet import Fleet
from lb.health.lifecycle import LifeEvent
from lb.health.progress import hung, lost, silent, unanswered
from lb.ledger import Entry, decay, set_aside
from lb.pools import Pool
from lb.replica import GpuReading, GpuState, Replica, ReplicaState, pace_of
from lb.routing.scorers.curiosity import FRESH_S
from lb.runtime import ProbeResult, ProbeStatus, RuntimeLoad
from lb.settings import LbSettings

_CHECK_S = 1.0
"""Between looks for hung replicas and stale readings: a tenth of the shortest silence that counts."""
_BLOCK_TOKENS = 512
_FULL_READINGS = 2
"""Readings in a row with requests waiting inside a runtime that show how many it runs at once."""
_SPARE_READINGS = 2
"""Readings in a row with none waiting at the learned limit that show that it runs more."""
_SPARE_STEP = 4
"""Learned slots grow by this part of them, and by one at least: from a batch of 1 to 64 in 18 steps at most."""


class Watch:
    """Applies observations to the fleet. A reading never lowers what our own ledger knows."""

    __slots__ = ("_checked_at", "_fleet", "_settings")

    def __init__(self, settings: LbSettings, fleet: Fleet) -> None:
        self._settings = settings
        self._fleet = fleet
        self._checked_at = -inf

    def reconfigure(self, settings: LbSettings) -> None:
        self._settings = settings

    # ------------------------------------------------------------------ load

    def load(self, replica: Replica, load: RuntimeLoad, now: float) -> None:
        """One reading. Values that are no numbers, or absurd, count as not said."""
        swaps = replica.load is None or (replica.load.loaded_models is None) != (load.loaded_models is None)
        load = _sane(load)
        replica.load = load
        replica.load_at = now
        replica.load_misses = 0
        if load.running is not None or load.waiting is not None:
            # Where others wait and what runs is not told (Triton), what waits is at least there.
            total = (load.running or 0.0) + (load.waiting or 0.0)
            seen = max(0.0, total - replica.in_flight)
            replica.foreign = min(seen, replica.foreign_seen)
            replica.foreign_seen = seen
            if load.running is not None:
                # What is abandoned is in the runtime's own count, as far as two readings have confirmed it.
                unconfirmed = max(0, round(seen - replica.foreign))
                del replica.abandoned[: max(0, len(replica.abandoned) - unconfirmed)]
        self._slots(replica, load)
        self._life(replica, load, now)
        if load.kv_capacity_tokens:
            self._fleet.router.prefixes.bound(replica.index, load.kv_capacity_tokens // _BLOCK_TOKENS)
        if swaps:
            self._fleet.pools.refresh(replica)
        self._fleet.recount(replica, now)
        self._fleet.router.settle(replica)

    def _slots(self, replica: Replica, load: RuntimeLoad) -> None:
        """How many requests it runs at once: told, or seen while others waited."""
        if load.max_running is not None:
            replica.slots = load.max_running
        elif replica.slots is not None:
            self._recover(replica, replica.slots, load)
        if load.waiting is None:
            replica.full_at = None
            return
        waits = load.waiting >= 1.0 and (load.running is None or load.running >= 1.0)
        replica.full_seen = replica.full_seen + 1 if waits else 0
        if replica.full_seen < _FULL_READINGS:
            replica.full_at = None
            return
        if load.running is None:
            # Full, and at how many is not told: of ours those that do not wait, and one at least.
            replica.full_at = max(1.0, replica.in_flight - load.waiting)
            return
        replica.full_at = load.running
        if load.max_running is None and replica.slots is None:
            replica.slots = max(1, round(load.running))

    def _recover(self, replica: Replica, slots: int, load: RuntimeLoad) -> None:
        """Learned slots may have been too few: a long prompt takes a runtime's budget of tokens, and others wait beside
        a small batch."""
        if load.running is not None and load.running > slots:
            replica.slots = slots = round(load.running)
        # Below its slots it is an operator's cap, or what it said itself (429), that holds requests back.
        at_limit = replica.in_flight >= replica.limit and replica.in_flight + replica.foreign >= slots
        spare = at_limit and load.waiting == 0.0 and replica.overloaded_until == -inf
        replica.spare_seen = replica.spare_seen + 1 if spare else 0
        if replica.spare_seen >= _SPARE_READINGS:
            replica.spare_seen = 0
            replica.slots = slots + max(1, slots // _SPARE_STEP)

    def _life(self, replica: Replica, load: RuntimeLoad, now: float) -> None:
        """Rising token counters are progress, also of requests that answer in one piece."""
        tokens = (load.prompt_tokens_total or 0.0) + (load.output_tokens_total or 0.0)
        if replica.ramp is not None and replica.ramp.never_left(tokens):
            self._fleet.warm(replica)
        if tokens != replica.progress_tokens:
            if tokens > replica.progress_tokens:
                replica.progress_at = now
            replica.progress_tokens = tokens

    def load_failed(self, replica: Replica, now: float) -> None:
        replica.load_misses += 1
        if replica.load_misses >= self._settings.health.scrape_stale:
            self._stale(replica, now)

    def _stale(self, replica: Replica, now: float) -> None:
        """Believe the last reading no longer; the ledger alone goes on."""
        if replica.load is None:
            return
        replica.load = None
        replica.foreign = replica.foreign_seen = 0.0
        replica.full_at = None
        replica.full_seen = replica.spare_seen = 0
        self._fleet.recount(replica, now)
        self._fleet.router.settle(replica)

    # ------------------------------------------------------------------ probes and GPUs

    def probe(self, replica: Replica, probe: ProbeResult, now: float, effects: list[Effect]) -> list[Pool]:
        """One probe. Returns pools that are gone, as the replica has said what it serves."""
        fleet = self._fleet
        gone: list[Pool] = []
        if probe.runtime is not None and replica.endpoint.runtime == "auto":
            gone = fleet.learn_runtime(replica, probe.runtime, now)
        if probe.models is not None:
            gone += fleet.learn_models(replica, probe.models, now)
        verdict = replica.probes.observe(probe.status, self._settings.health)
        if verdict is ProbeStatus.READY:
            if replica.gpu is None or replica.gpu.state is not GpuState.LOST:
                early = replica.outlier.ejected_until > now
                event = LifeEvent.UP_EARLY if early else LifeEvent.UP
                fleet.move(replica, event, probe.reason or "its probes pass", now, effects)
        elif verdict is ProbeStatus.LOADING:
            self.loading(replica, probe.reason or "it says that it is loading", now, effects)
        elif verdict is ProbeStatus.FAILED:
            fleet.move(replica, LifeEvent.DOWN, probe.reason or "its probes fail", now, effects)
        return gone

    def loading(self, replica: Replica, reason: str, now: float, effects: list[Effect]) -> None:
        """A new process, or a new model in it: its caches and its past faults are no more."""
        if self._fleet.move(replica, LifeEvent.LOADING, reason, now, effects):
            self._new_process(replica)

    def refused(self, replica: Replica, now: float, effects: list[Effect]) -> None:
        """Nobody listens there: out until a probe passes."""
        if self._fleet.move(replica, LifeEvent.REFUSED, "connections refused", now, effects):
            self._new_process(replica)
            replica.probes.doubt(self._settings.health)

    def _new_process(self, replica: Replica) -> None:
        replica.outlier.ejected_until = -inf
        replica.outlier.success()
        self._fleet.router.forget(replica)

    def gpu(self, replica: Replica, reading: GpuReading | None, now: float, effects: list[Effect]) -> None:
        """A reading of the GPUs under a replica; None: not known any more, neutral."""
        was_lost = replica.gpu is not None and replica.gpu.state is GpuState.LOST
        replica.gpu = reading
        speed = reading.speed_ratio if reading is not None and reading.speed_ratio is not None else 1.0
        replica.speed.derate(speed)
        replica.pace = pace_of(replica.speed)
        state = GpuState.UNKNOWN if reading is None else reading.state
        reason = "" if reading is None else reading.reason
        if state is GpuState.LOST:
            self._fleet.move(replica, LifeEvent.GPU_LOST, reason or "its GPU is lost", now, effects)
        elif state is GpuState.DRAIN:
            self._fleet.move(replica, LifeEvent.DRAIN, reason or "its GPU must be reset or repaired", now, effects)
        elif self._gpu_back(replica, was_lost, now, effects):
            replica.probes.good = 0
        self._fleet.router.settle(replica)

    def _gpu_back(self, replica: Replica, was_lost: bool, now: float, effects: list[Effect]) -> bool:
        """Its cards take work: end what they were the reason for. What was reset has to pass its probes again."""
        if replica.state is ReplicaState.DRAINING:
            if replica.drained or replica.retired:
                return False
            return self._fleet.move(replica, LifeEvent.UNDRAIN, "its GPU takes work again", now, effects)
        return was_lost and self._fleet.move(replica, LifeEvent.GPU_BACK, "its GPU is back", now, effects)

    # ------------------------------------------------------------------ time

    def tick(self, now: float, effects: list[Effect]) -> None:
        """Let time pass: ejections end, ramps rise, drains lose patience, silence is noticed."""
        fleet = self._fleet
        for replica in list(fleet.ramping):
            self._ramp(replica, now)
        check = now - self._checked_at >= _CHECK_S
        if check:
            self._checked_at = now
            fleet.router.sessions.expire(now)
            fleet.assume_speeds(fleet.replicas.values())
        stale_s = self._settings.health.scrape_stale * max(1.0, self._settings.health.scrape_interval_s)
        for replica in fleet.everyone():
            if replica.state is ReplicaState.EJECTED and replica.outlier.ejected_until <= now:
                fleet.move(replica, LifeEvent.EJECTION_OVER, "one request may try it", now, effects)
            if replica.overloaded_until != -inf and replica.overloaded_until <= now:
                replica.overloaded_until = -inf
                fleet.recount(replica, now)
            if replica.abandoned and replica.abandoned[0] <= now:
                decay(replica, now)
                fleet.recount(replica, now)
            if not check:
                continue
            if now - replica.taught_at > FRESH_S:
                fleet.router.settle(replica)
            if now - replica.load_at > stale_s + self._settings.health.timeout_s:
                self._stale(replica, now)
            if replica.in_flight:
                self._listen(replica, now, effects)
        fleet.enforce_drains(now, effects)

    def _listen(self, replica: Replica, now: float, effects: list[Effect]) -> None:
        """Notice silence, and take back what will not be answered."""
        health = self._settings.health
        if silent(replica, now, health):
            replica.silent_at = now
        why = hung(replica, now, health)
        if why is not None:
            if replica.selectable:
                self._fleet.eject(replica, why, now, effects)
            effects.extend(Withdraw(ticket) for ticket in unanswered(replica))
            return
        for ticket in lost(replica, now):
            entry = ticket.core
            assert isinstance(entry, Entry)
            set_aside(replica, entry, now)  # else it looks ever later, and the replica ever worse
            effects.append(Withdraw(ticket))

    def _ramp(self, replica: Replica, now: float) -> None:
        ramp = replica.ramp
        if ramp is not None and ramp.ratio(now) >= 1.0:
            self._fleet.warmup.learn(ramp.duration_s)
            self._fleet.warm(replica)
        self._fleet.router.settle(replica)


def _sane(load: RuntimeLoad) -> RuntimeLoad:
    """`load` without negative or infinite values and NaN: they count as not said."""
    fields = ("running", "waiting", "waiting_tokens", "kv_usage_ratio", "prompt_tokens_total", "output_tokens_total")
    bad: dict[str, Any] = {}
    for name in fields:
        value = getattr(load, name)
        if value is not None and not (isfinite(value) and 0.0 <= value <= 1e15):
            bad[name] = None
    if load.kv_usage_ratio is not None and "kv_usage_ratio" not in bad and load.kv_usage_ratio > 1.0:
        bad["kv_usage_ratio"] = None
    if load.max_running is not None and load.max_running < 1:
        bad["max_running"] = None
    if load.kv_capacity_tokens is not None and load.kv_capacity_tokens < 1:
        bad["kv_capacity_tokens"] = None
    return replace(load, **bad) if bad else load
