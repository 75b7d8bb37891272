"""This machine as a place for one pool's replicas: claims of ports and GPUs, and how a claim becomes an observation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from autoscaler.actuator import ActuatorError, Observed
from autoscaler.fleet import Phase, ReplicaFact, Stage
from autoscaler.local.placement import Card, can_bind, free_cards, free_port
from autoscaler.local.records import Record, Records
from autoscaler.policy.actuators import ProcessSettings, SystemdSettings
from autoscaler.policy.pools import PoolSettings
from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.feeds.http import FetchError, ProbeClient
from nvml.sample import NodeSnapshot

HOST = "127.0.0.1"
"""Replicas of this machine are asked where nobody else can ask them."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
"""Names become files, units and arguments."""


class Site:
    """Where the replicas of one pool live on this machine. Blocking except for `ready`."""

    def __init__(
        self,
        pool: PoolSettings,
        settings: ProcessSettings | SystemdSettings,
        state_directory: Path,
        clock: Clock,
        gpus: Callable[[], NodeSnapshot | None],
    ) -> None:
        """`gpus`: the latest reading of this machine's cards, None where there is none."""
        self.pool = pool
        self.records = Records(state_directory)
        self.clock = clock
        self._settings = settings
        self._gpus = gpus
        self._kinds = {kind.name: kind for kind in pool.kinds}

    def claim(self, name: str, kind: str) -> Record | None:
        """Note that `name` is to be started, with a port and GPUs of its own. None: there is one of that name already.

        Raises ActuatorError where there is no room or the name cannot be one.
        """
        if not _NAME.match(name):
            raise ActuatorError(f"{name!r} cannot be a replica's name; only letters, digits, `.`, `_` and `-` can")
        if kind not in self._kinds:
            raise ActuatorError(f"pool {self.pool.name} has no kind {kind!r}")
        with self.records.lock():
            records, unreadable = self.records.load(self.pool.name)
            if any(record.name == name for record in records):
                return None
            if any(path.stem == name for path in unreadable):
                raise ActuatorError(f"{unreadable[0]} cannot be read, so {name} may run already; remove that file")
            ports, claimed = self.records.claims()
            cards = self._cards(kind, claimed)
            record = Record(
                name=name,
                pool=self.pool.name,
                kind=kind,
                port=free_port(self._settings.ports, ports, lambda port: can_bind(HOST, port)),
                boot=self.records.boot,
                asked_at=self.clock.monotonic(),
                gpus=tuple(card.visible for card in cards),
                uuids=tuple(card.uuid for card in cards if card.uuid is not None),
            )
            self.records.save(record)
        return record

    def find(self, name: str | None) -> Record | None:
        """The record of that name; None: unknown."""
        return next((record for record in self.records.load(self.pool.name)[0] if record.name == name), None)

    def full(self) -> frozenset[str]:
        """Kinds for which there are not enough free cards now."""
        needing = {name: self._wanted(name) for name in self._kinds if self._wanted(name)}
        if not needing:
            return frozenset()
        free, _ = free_cards(self._settings.gpus, self._gpus(), self.records.claims()[1])
        return frozenset(name for name, wanted in needing.items() if wanted > len(free))

    async def ready(self, client: ProbeClient, records: Iterable[Record]) -> set[str]:
        """Names of those that answer that they are ready."""

        async def ask(record: Record) -> str | None:
            url = f"http://{HOST}:{record.port}{self._settings.ready_path}"
            try:
                answer = await client.fetch(url, timeout_s=self._settings.ready_timeout_s)
            except FetchError:
                return None
            return record.name if 200 <= answer.status < 300 else None

        return {name for name in await asyncio.gather(*map(ask, records)) if name is not None}

    def observed(self, record: Record, phase: Phase, detail: str = "") -> Observed:
        """What a record says, in the words of the contract."""
        since_s = {
            Phase.READY: record.ready_at,
            Phase.STOPPING: record.stopping_at,
            Phase.FAILED: record.failed_at,
        }.get(phase, record.asked_at)
        fact = ReplicaFact(
            id=record.name, phase=phase, kind=record.kind, start_id=record.name, stages=_stages(record), since_s=since_s
        )
        return Observed(fact, self._endpoint(record), detail or record.failure)

    def update(self, record: Record, **changes: object) -> Record:
        """Change a record, on disk as well."""
        changed = msgspec.structs.replace(record, **changes)
        self.records.save(changed)
        return changed

    def _wanted(self, kind: str) -> int:
        return 0 if self._settings.gpus == "none" else self._kinds[kind].gpus

    def _cards(self, kind: str, claimed: set[str]) -> list[Card]:
        wanted = self._wanted(kind)
        if wanted == 0:
            return []
        free, why = free_cards(self._settings.gpus, self._gpus(), claimed)
        if len(free) < wanted:
            found = f"{len(free)} free" if free else "none is free"
            raise ActuatorError(f"a replica of kind {kind} takes {wanted} GPU(s) and {found}: {why}")
        return free[:wanted]

    def _endpoint(self, record: Record) -> Endpoint:
        return Endpoint(id=record.name, host=HOST, port=record.port, models=self.pool.models, gpu_uuids=record.uuids)


def _stages(record: Record) -> dict[Stage, float]:
    """On one machine node, GPUs and image are there when it starts; that it answers says that weights are loaded."""
    stages = {Stage.REQUESTED: record.asked_at}
    if record.started_at is not None:
        stages |= dict.fromkeys((Stage.NODE, Stage.GPU, Stage.IMAGE), record.started_at)
    if record.ready_at is not None:
        stages |= dict.fromkeys((Stage.WEIGHTS, Stage.WARM), record.ready_at)
    return stages
