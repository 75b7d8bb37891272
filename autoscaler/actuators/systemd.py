"""Replicas that are instances of a template unit of this machine's systemd.

A replica's port and GPUs are in `STATE/NAME.env`, which the unit reads. systemd keeps the processes, their logs
and their restarts; here is only remembered what was claimed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from autoscaler.action import Action, GiveUp, ScaleUp, Stop
from autoscaler.actuator import ActuatorError, Observation, Observed
from autoscaler.fleet import Phase, ReplicaFact
from autoscaler.local.aside import in_thread
from autoscaler.local.records import Record
from autoscaler.local.site import Site
from autoscaler.local.units import Unit, UnitError, Units
from autoscaler.policy.actuators import SystemdSettings, fill
from lb.feeds.http import ProbeClient

log = logging.getLogger(__name__)

_PHASES = {"activating": Phase.STARTING, "deactivating": Phase.STOPPING}
_RUNNING = ("active", "reloading", "refreshing")


@dataclass(slots=True)
class _Look:
    """One pass over records and units."""

    settled: list[Observed] = field(default_factory=list)
    starting: list[Record] = field(default_factory=list)
    """Their units are active and they have to be asked whether they are ready."""


class SystemdActuator:
    """See the module."""

    def __init__(self, settings: SystemdSettings, site: Site) -> None:
        self._template = settings.unit
        self._site = site
        self._units = Units(settings.bus, settings.timeout_s)
        self._client = ProbeClient(fresh=True)
        self._opened = False

    async def observe(self) -> Observation:
        """Recorded replicas and what systemd says of them; instances that somebody else started as well."""
        units = {unit.name: unit for unit in await self._units.matching(self._unit("*"))}
        records, unreadable = await in_thread(self._site.records.load, self._site.pool.name)
        for path in unreadable:
            log.error("pool %s: %s cannot be read; whose unit it is, is not known", self._site.pool.name, path)
        look = _Look()
        for record in records:
            await self._one(record, units.pop(self._unit(record.name), None), look)
        elsewhere = await in_thread(self._site.records.elsewhere, self._site.pool.name)
        others = {self._unit(name) for name in elsewhere}
        look.settled += [self._stranger(unit) for unit in units.values() if unit.name not in others and _runs(unit)]
        ready = await self._site.ready(await self._probes(), look.starting)
        full = await in_thread(self._site.full)
        now = self._site.clock.monotonic()
        for record in look.starting:
            if record.name in ready:
                look.settled.append(self._site.observed(self._site.update(record, ready_at=now), Phase.READY))
            else:
                look.settled.append(self._site.observed(record, Phase.STARTING))
        look.settled.sort(key=lambda one: one.fact.id)
        return Observation(now, tuple(look.settled), not unreadable, full=full)

    async def apply(self, action: Action) -> None:
        """Queue starts and stops; a drain is the balancer's matter."""
        match action:
            case ScaleUp():
                for name in action.start_ids:
                    await self._start(name, action.kind)
            case Stop():
                await self._stop(action.replica)
            case GiveUp():
                given_up = action.replica or action.start_id
                if given_up is not None and not await self._is_ready(given_up):
                    await self._stop(given_up)
            case _:
                pass

    async def close(self) -> None:
        """Units run on."""
        await self._units.close()
        await self._client.close()
        self._opened = False

    # ------------------------------------------------------------------ looking

    async def _one(self, record: Record, unit: Unit | None, look: _Look) -> None:
        """Add what a record stands for now."""
        see = self._site.observed
        if record.stopping_at is not None:
            if unit is None or (unit.active in ("inactive", "failed") and not unit.job):
                await self._forget(record, unit)
            else:
                look.settled.append(see(record, Phase.STOPPING))
        elif record.failed_at is not None:
            look.settled.append(see(record, Phase.FAILED))
        elif unit is None or not _there(unit):
            if record.started_at is None:
                # systemd never heard of it; whoever asked for it asks again.
                await self._forget(record, unit)
                return
            look.settled.append(see(self._fail(record, "its unit ended, or somebody else stopped it"), Phase.FAILED))
        elif unit.active == "failed" and not unit.job:
            why = await self._units.failure(unit) or "for a reason that systemd does not tell"
            text = f"its unit failed, {why}; `journalctl -u {unit.name}` has its log"
            look.settled.append(see(self._fail(record, text), Phase.FAILED))
        elif unit.active == "deactivating":
            look.settled.append(see(record, Phase.STOPPING))
        elif unit.active not in _RUNNING:
            # systemd restarts it: what it was ready for is over.
            record = self._site.update(record, ready_at=None) if record.ready_at is not None else record
            look.settled.append(see(record, Phase.STARTING))
        elif record.ready_at is None:
            look.starting.append(record)
        else:
            look.settled.append(see(record, Phase.READY))

    def _stranger(self, unit: Unit) -> Observed:
        """An instance that somebody else started: it counts, and its address is not known."""
        phase = _PHASES.get(unit.active, Phase.READY if unit.active in _RUNNING else Phase.STARTING)
        kind = self._site.pool.kinds[0].name
        return Observed(ReplicaFact(self._instance(unit.name), phase, kind), detail="started by somebody else")

    def _fail(self, record: Record, why: str) -> Record:
        log.warning("pool %s: replica %s: %s", record.pool, record.name, why)
        return self._site.update(record, failed_at=self._site.clock.monotonic(), failure=why)

    async def _is_ready(self, name: str) -> bool:
        units = await self._units.matching(self._unit(name))
        if not any(unit.active in _RUNNING for unit in units):
            return False
        record = self._site.find(name)
        if record is None or record.ready_at is not None:
            return record is None or record.stopping_at is None
        return record.name in await self._site.ready(await self._probes(), [record])

    async def _probes(self) -> ProbeClient:
        if not self._opened:
            await self._client.open()
            self._opened = True
        return self._client

    # ------------------------------------------------------------------ starting and ending

    async def _start(self, name: str, kind: str) -> None:
        record = await in_thread(self._site.claim, name, kind)
        if record is None:
            record = self._site.find(name)
            if record is None or record.started_at is not None or record.failed_at is not None:
                return
        self._write_environment(record)
        try:
            await self._units.start(self._unit(name))
        except UnitError as error:
            self._fail(record, str(error))
            return
        # Any other error leaves the claim: systemd may have heard us, and asking again does no harm.
        self._site.update(record, started_at=self._site.clock.monotonic())
        log.info(
            "pool %s: started %s on port %d, GPUs %s", record.pool, name, record.port, ",".join(record.gpus) or "-"
        )

    def _write_environment(self, record: Record) -> None:
        lines = {
            "PORT": str(record.port),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of nvidia-smi and NVML; CUDA's own puts the fastest first
            "CUDA_VISIBLE_DEVICES": ",".join(record.gpus),
            "TIDEGATE_POOL": record.pool,
            "TIDEGATE_KIND": record.kind,
        }
        path = self._site.records.environment(record)
        try:
            path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        except OSError as error:
            raise ActuatorError(f"cannot write {path}: {error.strerror}") from None

    async def _stop(self, name: str) -> None:
        units = {unit.name: unit for unit in await self._units.matching(self._unit("*"))}
        unit = units.get(self._unit(name))
        if unit is not None and _there(unit):
            log.info("pool %s: ending %s", self._site.pool.name, unit.name)
            await self._units.stop(unit.name)
        # Only now, so that a stop that did not reach systemd is not taken for one that goes on.
        record = await in_thread(self._site.find, name)
        if record is not None and record.stopping_at is None:
            self._site.update(record, stopping_at=self._site.clock.monotonic())

    async def _forget(self, record: Record, unit: Unit | None) -> None:
        if unit is not None and unit.active == "failed":
            await self._units.forget_failure(unit.name)
        await in_thread(self._site.records.remove, record)

    def _unit(self, name: str) -> str:
        return fill(self._template, {"name": name})

    def _instance(self, unit: str) -> str:
        before, _, after = self._template.partition("{name}")
        return unit.removeprefix(before).removesuffix(after)


def _runs(unit: Unit) -> bool:
    """A stranger that failed is nobody's capacity, and its cleaning up is its operator's."""
    return unit.active != "failed" and _there(unit)


def _there(unit: Unit) -> bool:
    return unit.active != "inactive" or unit.job
