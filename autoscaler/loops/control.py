"""The control loop: look, decide, remember, act. Nothing that an actuator, a disk or a replica does ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from autoscaler.action import Action, GiveUp, Stop
from autoscaler.actuator import Observation
from autoscaler.controller import Controller, Tick
from autoscaler.decide.observation import PoolDemand
from autoscaler.decide.outlook import Outlook
from autoscaler.loops.acting import Acting
from autoscaler.loops.balancers import Balancers
from autoscaler.loops.demand import Rates, models_of, objectives_of, pool_demand
from autoscaler.loops.hands import Applied, Hands, name_of
from autoscaler.loops.joined import Joined, endpoints, join
from autoscaler.loops.memory import pack, unpack
from autoscaler.loops.merging import Merged
from autoscaler.loops.recall import recall
from autoscaler.loops.report import PoolReport, stages_of
from autoscaler.loops.telling import Telling, record
from autoscaler.metrics import ControlMetrics
from autoscaler.policy.pools import Mode, PoolSettings, ScalingSettings
from autoscaler.store import Store, StoredDecision, StoreError
from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.gateway import Gateway
from lb.views import ReplicaView

log = logging.getLogger(__name__)

STATE = "controller"
"""Name of the controller's state in the store."""
KNOCK_S = 0.5
"""Between looks for requests at pools without replicas: little beside any start, and such a pool has no other load."""
SAVE_EVERY_S = 60.0
"""What a crash may forget."""


class Utilization(Protocol):
    """Mean utilisation (0..1) of the GPUs under these replicas; None: not known."""

    def __call__(self, endpoints: tuple[Endpoint, ...]) -> float | None: ...


def _no_forecast() -> Mapping[str, Outlook]:
    return {}


def _unknown(endpoints: tuple[Endpoint, ...]) -> float | None:
    return None


class ControlLoop:
    """All pools of a policy. `boot` names the machine's boot, `epoch` this life of the controller."""

    def __init__(
        self,
        gateway: Gateway,
        settings: ScalingSettings,
        hands: Mapping[str, Hands],
        store: Store,
        clock: Clock,
        metrics: ControlMetrics,
        *,
        boot: str,
        epoch: str,
        outlooks: Callable[[], Mapping[str, Outlook]] = _no_forecast,
        leads: Callable[[], bool] = lambda: True,
        utilization: Utilization = _unknown,
        balancers: Balancers | None = None,
    ) -> None:
        self.controller = Controller(settings, epoch=epoch)
        self._gateway = gateway
        self._hands = dict(hands)
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._boot = boot
        self._outlooks = outlooks
        self._leads = leads
        self._utilization = utilization
        self._balancers = balancers
        self._acting = Acting(gateway, leads, balancers)
        self._telling = Telling()
        self._seen: dict[str, Observation] = {}
        """The last observation of each pool, however old."""
        self._places: dict[str, tuple[Endpoint, ...]] = {}
        """Where the balancer was told that a pool's replicas are."""
        self._reports: dict[str, PoolReport] = {}
        self._rates: dict[str, Rates] = {}
        self._saved_at = float("-inf")
        self._empty: frozenset[str] = frozenset()
        """Pools that have nothing, not even a start, and may start something."""
        self._busy = asyncio.Lock()
        """A tick or a change of settings, not both."""
        gateway.expect(*objectives_of(settings.pools))

    # ------------------------------------------------------------------ life

    async def begin(self) -> None:
        """Remember what an earlier process knew, and look once, so that the balancer hears of running replicas."""
        try:
            saved = await self._store.load_state(STATE)
        except StoreError as error:
            log.warning("what was learned before is not known", extra={"reason": str(error)})
            saved = None
        clock = self._clock
        state = {} if saved is None else unpack(saved[1], boot=self._boot, now=clock.monotonic(), wall=clock.wall())
        self.controller.restore(state)
        await recall(self.controller, self._store, clock, state)
        await self._look()

    async def run(self) -> None:
        """Tick at a fixed cadence until cancelled, and at once when a request waits for the first replica of a pool."""
        due = self._clock.monotonic()
        listens = True
        while True:
            await self.tick()
            due = max(due + self.controller.settings.interval_s, self._clock.monotonic())
            knocked = await self._rest(due, listens)
            if knocked:
                due = self._clock.monotonic()
            # One early tick a rest: a start that fails is tried again at the usual pace.
            listens = not knocked

    async def _rest(self, due: float, listens: bool) -> bool:
        """Wait until `due`. True: a request waits for the first replica of a pool that has none."""
        while (left_s := due - self._clock.monotonic()) > 0.0:
            if not (listens and self._empty):
                await asyncio.sleep(left_s)
                break
            await asyncio.sleep(min(left_s, KNOCK_S))
            if self.knocked():
                return True
        return False

    def knocked(self) -> bool:
        """Whether a request waits for the first replica of a pool that has none."""
        demand = self.demand(self._clock.monotonic()).models
        models = models_of(self.controller.settings.pools, demand)
        return any(demand[model].held for pool in self._empty for model in models.get(pool, ()) if model in demand)

    async def rest(self) -> None:
        """Wait until nothing is being done; to be called once the task of `run` was told to end."""
        async with self._busy:
            self.save()

    def save(self) -> None:
        """Hand what was learned to the store."""
        self._saved_at = self._clock.monotonic()
        state = self.controller.state()
        self._store.save_state(STATE, pack(state, boot=self._boot, now=self._saved_at, wall=self._clock.wall()))

    async def close(self) -> None:
        """Save, and let go of the actuators. Replicas stay as they are."""
        self.save()
        await asyncio.gather(*(hands.close() for hands in self._hands.values()))
        if self._balancers is not None:
            await self._balancers.close()

    async def reconfigure(self, settings: ScalingSettings, hands: Mapping[str, Hands]) -> None:
        """New settings. Hands that are not among the new ones are let go; what was learned of the others is kept."""
        async with self._busy:
            await self._reconfigure(settings, hands)

    async def _reconfigure(self, settings: ScalingSettings, hands: Mapping[str, Hands]) -> None:
        for pool in settings.pools:
            self._release(pool)
        gone = [name for name in self._hands if name not in hands]
        for name in gone:
            log.warning("pool %s is no longer scaled; its replicas run on, and get no more requests", name)
            self._gateway.drop_source(source_of(name))
            self._seen.pop(name, None)
            self._places.pop(name, None)
            self._rates.pop(name, None)
            self._reports.pop(name, None)
        self._telling.forget(gone)
        self._metrics.forget([*gone, *(pool.name for pool in settings.pools if _watches(pool))])
        left = [one for name, one in self._hands.items() if hands.get(name) is not one]
        self._hands = dict(hands)
        self.controller.reconfigure(settings)
        self._gateway.expect(*objectives_of(settings.pools))
        for one in left:
            await one.close()

    def _release(self, pool: PoolSettings) -> None:
        """Replicas in their drain serve again where nobody will stop them any more."""
        names = {one.name: one for one in self.controller.settings.pools}
        if pool.name in names and names[pool.name].mode is Mode.OWN and pool.mode is not Mode.OWN:
            until = self.controller.pool(pool.name).reconciler.draining.until
            self._acting.release(tuple(until))
            until.clear()

    # ------------------------------------------------------------------ one tick

    async def tick(self) -> Tick | None:
        """Look, decide, act, remember. None: there is nothing to decide, or another controller leads."""
        async with self._busy:
            return await self._tick() if self._hands else None

    async def _tick(self) -> Tick | None:
        began = self._clock.monotonic()
        await asyncio.gather(self._look(), self._hear())
        if not self._leads():
            return None
        now, wall = self._clock.monotonic(), self._clock.wall()
        views, demand = self._views(now), self.demand(now)
        joined = self._join(views, now)
        await asyncio.sleep(0)
        wanted = self._demand(views, demand, now)
        outlooks = dict(self._outlooks())
        fleets = {name: one.fleet for name, one in joined.items()}
        tick = self.controller.tick(fleets, wanted, outlooks, now=now, wall=wall)
        counts = not all(map(_watches, self.controller.settings.pools))
        if counts:
            self._metrics.decided(self._clock.monotonic() - now)
        # Fifty pools take tens of milliseconds; requests are relayed in between.
        await asyncio.sleep(0)
        applied = await self._act(tick, joined)
        self._empty = frozenset(
            one.pool for one in tick.decisions if one.mode is Mode.OWN and one.supply == 0 == one.desired
        )
        self._tell(tick, joined, applied, outlooks, wall)
        if now - self._saved_at >= SAVE_EVERY_S:
            self.save()
        if counts:
            self._metrics.ticked(self._clock.monotonic() - began)
        return tick

    async def _look(self) -> None:
        """Observe every pool and tell the balancer where its replicas are."""
        names = list(self._hands)
        found = await asyncio.gather(*(self._hands[name].observe() for name in names))
        for name, seen in zip(names, found, strict=True):
            if seen is None or name not in self._hands:
                continue
            self._seen[name] = seen
            known = self._places.get(name, ())
            places = endpoints(seen, known)
            if places != known:
                self._places[name] = places
                self._gateway.set_source(source_of(name), places)

    async def _hear(self) -> None:
        if self._balancers is not None:
            await self._balancers.look()

    def demand(self, now: float) -> Merged:
        """Demand of all balancers as of the last look, ours as of now."""
        own = self._gateway.balancer.demand(now).models
        return Merged(own, complete=True) if self._balancers is None else self._balancers.merged(own, now)

    def _views(self, now: float) -> dict[str, ReplicaView]:
        """The replicas that our balancer knows, by id, with what all balancers do on them."""
        own = self._gateway.balancer.view(now).replicas
        if self._balancers is None:
            return {one.id: one for one in own}
        return {one.id: self._balancers.seen(one, now) for one in own}

    def _join(self, views: Mapping[str, ReplicaView], now: float) -> dict[str, Joined]:
        return {
            pool.name: join(pool, self._present(pool.name), views, now)
            for pool in self.controller.settings.pools
            if pool.name in self._seen
        }

    def _present(self, pool: str) -> Observation:
        """The last observation. If the last look failed it is a partial one, on which nothing is lowered, until it is
        too old to be believed at all."""
        seen = self._seen[pool]
        return seen if not self._hands[pool].error else replace(seen, complete=False)

    def _demand(self, views: Mapping[str, ReplicaView], demand: Merged, now: float) -> dict[str, PoolDemand]:
        pools = self.controller.settings.pools
        models = models_of(pools, demand.models)
        found = {}
        for pool in pools:
            seen = self._seen.get(pool.name)
            names = [one.fact.id for one in seen.replicas] if seen is not None else []
            found[pool.name] = pool_demand(
                pool, models[pool.name], demand.models, [views[name] for name in names if name in views],
                self._rates.setdefault(pool.name, Rates()),
                at=now, interval_s=self.controller.settings.interval_s, complete=demand.complete,
                gpu_utilization=self._utilization(self._places.get(pool.name, ())),
            )  # fmt: skip
        return found

    async def _act(self, tick: Tick, joined: Mapping[str, Joined]) -> dict[str, list[Applied]]:
        """Pools side by side, the actions of each in order."""
        asked: dict[str, list[Action]] = {}
        for action in tick.actions:
            asked.setdefault(action.pool, []).append(action)
        own = [
            pool
            for pool in self.controller.settings.pools
            if pool.mode is Mode.OWN and pool.name in joined and pool.name in self._hands
        ]
        done = await asyncio.gather(
            *(
                self._acting.carry_out(
                    pool, self._hands[pool.name], asked.get(pool.name, ()),
                    tuple(self.controller.pool(pool.name).starts.open), joined[pool.name].fleet,
                )
                for pool in own
            )
        )  # fmt: skip
        for pool, applied in zip(own, done, strict=True):
            self._withdraw(pool.name, applied)
        return {pool.name: applied for pool, applied in zip(own, done, strict=True)}

    def _withdraw(self, pool: str, applied: list[Applied]) -> None:
        """What was told to end is no place to probe any more. If it does not end, the next look finds it again."""
        ended = {one.action.replica for one in applied if not one.error and isinstance(one.action, Stop | GiveUp)}
        places = self._places.get(pool, ())
        left = tuple(one for one in places if one.id not in ended)
        if left != places:
            self._places[pool] = left
            self._gateway.set_source(source_of(pool), left)

    # ------------------------------------------------------------------ what is told

    def _tell(
        self,
        tick: Tick,
        joined: Mapping[str, Joined],
        applied: Mapping[str, list[Applied]],
        outlooks: Mapping[str, Outlook],
        wall: float,
    ) -> None:
        rows = []
        watched = {pool.name for pool in self.controller.settings.pools if _watches(pool)}
        for decision in tick.decisions:
            name = decision.pool
            acted, outlook = applied.get(name, []), outlooks.get(name)
            fault = self._fault(name, acted)
            notable = self._telling.say(decision, fault, acted)
            leads = self.controller.pool(name).starts.leads
            row = record(decision, acted, outlook, stages_of(leads), fault, wall=wall, notable=notable)
            rows.append(row)
            self._reports[name] = PoolReport(row, joined.get(name))
            if name not in watched:
                self._metrics.pool(decision, joined[name].fleet if name in joined else None, outlook, bool(fault))
            for one in acted:
                self._metrics.acted(name, name_of(one.action), decision.binding, failed=bool(one.error))
        self._store.record_decisions(rows)

    def _fault(self, pool: str, applied: list[Applied]) -> str:
        hands = self._hands.get(pool)
        faults = [f"its replicas cannot be seen: {hands.error}"] if hands is not None and hands.error else []
        silent = self._balancers.errors() if self._balancers is not None else {}
        faults += [f"the demand at {place} is not known: {why}" for place, why in silent.items()][:3]
        faults += [f"{name_of(one.action)} failed: {one.error}" for one in applied if one.error][:3]
        return "; ".join(faults)

    def places(self) -> frozenset[str]:
        """Ids of replicas whose address an actuator knows."""
        return frozenset(one.id for places in self._places.values() for one in places)

    def decisions(self) -> dict[str, StoredDecision]:
        """The last decision on each pool that has one."""
        return {name: one.decision for name, one in self._reports.items()}

    def report(self) -> list[dict[str, object]]:
        """Every pool as of its last tick, for the admin API."""
        return [
            self._reports[pool.name].shown() if pool.name in self._reports else {"pool": pool.name, "at": None}
            for pool in self.controller.settings.pools
        ]


def _watches(pool: PoolSettings) -> bool:
    """Whether another process scales it, as those of balancers are, which count its misses: that one's metrics tell of
    it, and alerts must not take ours for its."""
    return pool.mode is Mode.OBSERVE and pool.actuator.type == "dry_run"


def source_of(pool: str) -> str:
    """Name under which the balancer knows a pool's replicas."""
    return f"pool:{pool}"
