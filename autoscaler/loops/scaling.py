"""The controller with all that it needs, made from a policy and made anew when the policy changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoscaler.actuator import Observed
from autoscaler.actuators import Surroundings, build_actuator
from autoscaler.errors import EXIT_BAD_INPUT, StartError
from autoscaler.keda.wish import Wish
from autoscaler.loops.balancers import Balancers, Named
from autoscaler.loops.control import ControlLoop
from autoscaler.loops.forecasting import ForecastLoop, Plan
from autoscaler.loops.hands import Hands
from autoscaler.loops.joined import reported
from autoscaler.loops.leadership import Leadership
from autoscaler.loops.recording import Recorder
from autoscaler.loops.report import explained
from autoscaler.loops.wishes import wishes_of
from autoscaler.metrics import ControlMetrics, ForecastState
from autoscaler.policy.keda import KedaSettings
from autoscaler.policy.pools import PoolSettings, ScalingSettings
from autoscaler.policy.schema import Policy
from autoscaler.policy.store import StoreSettings
from autoscaler.roots import RootTasks
from autoscaler.store import STORE_FILE, Store, StoreError
from autoscaler.store.store import Retention
from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.errors import SettingsError
from lb.gateway import Gateway
from lb.secrets import resolve
from lb.views import DemandView
from nvml.sample import NodeSnapshot

if TYPE_CHECKING:
    from autoscaler.keda.service import KedaServer

log = logging.getLogger(__name__)

_TASKS = ("demand history", "forecasts", "control")
_ELECTION = "leader election"
_KEDA = "KEDA scaler"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a policy asks for, made and not yet in use. Whatever can fail has not."""

    settings: ScalingSettings
    store: StoreSettings
    hands: Mapping[str, Hands]
    plan: Plan
    balancers: tuple[Named, ...]


class Scaling:
    """One per process. `prepare`, then `start`; at a reload `prepare`, then `use`; `close` at the end."""

    def __init__(
        self,
        gateway: Gateway,
        clock: Clock,
        metrics: ControlMetrics,
        roots: RootTasks,
        *,
        base: Path,
        environ: Mapping[str, str],
        gpus: Callable[[], NodeSnapshot],
    ) -> None:
        """`base`: where relative names of the policy lie."""
        self._gateway = gateway
        self._clock = clock
        self._metrics = metrics
        self._roots = roots
        self._base = base
        self._environ = environ
        self._gpus = gpus
        self._leader: Leadership | None = None
        self._keda: KedaServer | None = None
        self._keda_settings: KedaSettings | None = None
        self._balancers: tuple[Named, ...] = ()
        self._hands: Mapping[str, Hands] = {}
        self._pools: dict[str, PoolSettings] = {}
        """By name, those that `_hands` were made for."""
        self._store_settings = StoreSettings()
        self.store: Store | None = None
        """None: not started, as there is nothing to do."""
        self.recorder: Recorder | None = None
        self.forecasts: ForecastLoop | None = None
        self.control: ControlLoop | None = None

    # ------------------------------------------------------------------ what a policy asks for

    def prepare(self, policy: Policy) -> Prepared:
        """Make what is new. Raises SettingsError, and changes nothing, if a secret is missing."""
        state = self.state_directory(self._store_settings if self.store is not None else policy.store)
        around = Surroundings(
            state / "replicas" if state is not None else self._home_state() / "replicas",
            self._base,
            self._clock,
            self._gpus,
            self._reported,
            self._environ,
            self.leads,
        )
        hands: dict[str, Hands] = {}
        for pool in policy.scaling.pools:
            if self._pools.get(pool.name) == pool:
                hands[pool.name] = self._hands[pool.name]
            else:
                hands[pool.name] = Hands(pool.name, build_actuator(pool, around), self._clock.monotonic)
        plan = Plan(policy.forecast, policy.events, policy.calendars, self._base, policy.scaling.pools)
        balancers = tuple(Named(one, self._authorization(one.token)) for one in policy.scaling.balancers)
        return Prepared(policy.scaling, policy.store, hands, plan, balancers)

    def _authorization(self, reference: str | None) -> str | None:
        return None if reference is None else f"Bearer {resolve(reference, self._base, self._environ)}"

    def state_directory(self, settings: StoreSettings) -> Path | None:
        """Where the store is; None: in memory."""
        if settings.directory is not None:
            return self._base / settings.directory
        # systemd gives several with colons between them; the first is the one to use.
        given = self._environ.get("STATE_DIRECTORY", "").partition(":")[0]
        return Path(given) if given else None

    def _home_state(self) -> Path:
        home = self._environ.get("XDG_STATE_HOME") or str(Path(self._environ.get("HOME", "/")) / ".local" / "state")
        return Path(home) / "tidegate"

    # ------------------------------------------------------------------ life

    async def start(self, prepared: Prepared) -> None:
        """Begin, if there is anything to do. Raises StartError if the store cannot be used."""
        directory = self.state_directory(prepared.store)
        if not prepared.settings.pools and directory is None:
            return
        self.store = await self._open(directory, prepared.store)
        self._store_settings = prepared.store
        self.recorder = Recorder(self._demand, self.store, self._clock)
        await self.recorder.recall()
        self.forecasts = ForecastLoop(self.recorder.history, self._clock, prepared.plan)
        self._take(prepared)
        if prepared.settings.lease is not None:
            try:
                self._leader = Leadership(prepared.settings.lease, self._environ)
            except SettingsError as error:
                raise StartError(str(error), EXIT_BAD_INPUT) from None
            self._roots.start(_ELECTION, self._leader.loop.run())
        self.control = ControlLoop(
            self._gateway, prepared.settings, self._hands, self.store, self._clock, self._metrics,
            boot=_boot(), epoch=f"{_base36(int(self._clock.wall()))}-",
            outlooks=self.forecasts.outlooks, leads=self.leads, utilization=self._utilization,
            balancers=self._elsewhere(prepared),
        )  # fmt: skip
        if prepared.settings.pools and directory is None:
            log.warning("what the controller learns ends with the process: store.directory names no place for it")
        await self.control.begin()
        for name, run in zip(_TASKS, (self.recorder.run, self.forecasts.run, self.control.run), strict=True):
            self._roots.start(name, run())
        if prepared.settings.keda is not None:
            await self._serve(prepared.settings.keda)

    async def _serve(self, settings: KedaSettings) -> None:
        """Tell KEDA what pools want. Raises StartError if the address cannot be had."""
        # gRPC is tens of megabytes and threads of its own: only who uses it has them.
        from autoscaler.keda.service import KedaServer

        server = KedaServer(settings.listen, self.wishes)
        try:
            await server.begin()
        except OSError as error:
            raise StartError(f"scaling.keda.listen: {error}", EXIT_BAD_INPUT) from None
        self._keda, self._keda_settings = server, settings
        self._roots.start(_KEDA, server.run())

    async def _open(self, directory: Path | None, settings: StoreSettings) -> Store:
        path = None
        try:
            if directory is not None:
                await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
                path = directory / STORE_FILE
            store = Store(path, wall=self._clock.wall, retention=_retention(settings))
            await store.start()
        except (StoreError, OSError) as error:
            raise StartError(f"store.directory: {error}", EXIT_BAD_INPUT) from None
        return store

    async def use(self, prepared: Prepared) -> None:
        """The policy was read again."""
        if self.control is None or self.store is None or self.forecasts is None:
            await self.start(prepared)
            return
        self.store.retention = _retention(prepared.store)
        self._take(prepared)
        self.forecasts.reconfigure(prepared.plan)
        await self.control.reconfigure(prepared.settings, self._hands)

    def restart_needed(self, prepared: Prepared) -> list[str]:
        """What of a policy waits for a restart, one line each."""
        if self.store is None:
            return []
        lines = []
        if self.state_directory(prepared.store) != self.state_directory(self._store_settings):
            lines.append("store.directory needs a restart")
        if prepared.balancers != self._balancers:
            lines.append("scaling.balancers needs a restart")
        if prepared.settings.lease != (self._leader.settings if self._leader is not None else None):
            lines.append("scaling.lease needs a restart")
        if prepared.settings.keda != self._keda_settings:
            lines.append("scaling.keda needs a restart")
        return lines

    def leads(self) -> bool:
        """Whether this controller may act at this instant."""
        return self._leader is None or self._leader.loop.leads()

    def _take(self, prepared: Prepared) -> None:
        self._hands = prepared.hands
        self._pools = {pool.name: pool for pool in prepared.settings.pools}

    async def halt(self) -> None:
        """Decide nothing more: the process is about to end, and the demand that it refuses now goes elsewhere."""
        if self.control is None:
            return
        for name in _TASKS:
            self._roots.stop(name)
        if self._keda is not None:
            self._roots.stop(_KEDA)
            await self._keda.close()
        await self.control.rest()
        if self._leader is not None:
            self._roots.stop(_ELECTION)
            await self._leader.loop.give_back()

    async def close(self) -> None:
        """After the tasks have ended: save, let go of actuators and of the lease, write what waits."""
        if self._keda is not None:
            await self._keda.close()
        if self.forecasts is not None:
            await self.forecasts.close()
        if self.control is not None:
            await self.control.close()
        if self._leader is not None:
            await self._leader.close()
        if self.recorder is not None:
            self.recorder.look()
        if self.store is not None:
            await self.store.close()

    # ------------------------------------------------------------------ what is asked

    @property
    def store_counts(self) -> tuple[int, int, int]:
        """Writes so far: written, failed, dropped."""
        if self.store is None:
            return (0, 0, 0)
        counts = self.store.counts
        return counts.written, counts.failed, counts.dropped

    def forecast_states(self) -> list[ForecastState]:
        """Every pool's forecast, for metrics."""
        return [] if self.forecasts is None else self.forecasts.states()

    @property
    def forecast_restarts(self) -> int:
        """Times that the process that forecasts had to be ended."""
        return 0 if self.forecasts is None else self.forecasts.restarts

    def pools(self) -> list[dict[str, object]]:
        """Every pool as of its last tick."""
        return [] if self.control is None else self.control.report()

    def wishes(self) -> dict[str, Wish]:
        """Every pool's size as others may carry it out, by name."""
        if self.control is None:
            return {}
        settings = self.control.controller.settings
        now = self._clock.monotonic()
        return wishes_of(settings.pools, self.control.decisions(), now=now, interval_s=settings.interval_s)

    async def explain(self, pool: str, at: float | None) -> dict[str, object] | None:
        """The decision on a pool in force at `at` (epoch seconds; None: now); None: none is known."""
        if self.store is None:
            return None
        decision = await self.store.decision(pool, self._clock.wall() if at is None else at)
        return None if decision is None else explained(decision)

    # ------------------------------------------------------------------ what others know

    def _elsewhere(self, prepared: Prepared) -> Balancers | None:
        self._balancers = prepared.balancers
        if not prepared.balancers:
            return None
        return Balancers(prepared.balancers, self._clock, stale_s=2.5 * prepared.settings.interval_s)

    def _demand(self, now: float) -> DemandView:
        """What is recorded: the demand at all balancers, or nothing while a part of it is not known."""
        if self.control is None:
            return DemandView(now, {})
        merged = self.control.demand(now)
        return DemandView(now, merged.models if merged.complete else {})

    def _reported(self, pool: PoolSettings) -> list[Observed]:
        now = self._gateway.now()
        views = {one.id: one for one in self._gateway.balancer.view(now).replicas}
        others = self.control.places() if self.control is not None else frozenset()
        return reported(pool, views, others, now)

    def _utilization(self, endpoints: tuple[Endpoint, ...]) -> float | None:
        wanted = {uuid for endpoint in endpoints for uuid in endpoint.gpu_uuids}
        if not wanted:
            return None
        known = [one.utilisation_ratio for one in self._gpus().gpus if one.uuid in wanted]
        found = [one for one in known if one is not None]
        return sum(found) / len(found) if found else None


def _retention(settings: StoreSettings) -> Retention:
    return Retention(settings.history_s, settings.decisions_s, settings.ordinary_s)


def _boot() -> str:
    """Names the boot of this machine; empty where that cannot be known."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = digits[digit] + text
    return text or "0"
