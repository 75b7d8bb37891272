"""The control loop over a real balancer and a world of replicas that a test spoils. Time is a value."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from autoscaler.action import Action, Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.actuator import ActuatorError, Observation, Observed
from autoscaler.controller import Tick
from autoscaler.fleet import Phase, ReplicaFact
from autoscaler.loops.control import ControlLoop
from autoscaler.loops.hands import Hands
from autoscaler.metrics import ControlMetrics
from autoscaler.policy.pools import PoolSettings, ScalingSettings
from autoscaler.store import Store
from lb.clock import Clock
from lb.effects import Outcome, Queued, Rejected, Routed, Ticket, TicketState
from lb.endpoint import Endpoint
from lb.gateway import Gateway
from lb.request import RequestInfo, SurfaceName, Usage
from lb.runtime import ProbeResult, ProbeStatus, RuntimeLoad
from lb.settings import LbSettings

READY = ProbeResult(ProbeStatus.READY)


class StillLoop:
    """Enough of an event loop for a gateway whose time a test moves."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.time = now

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.Handle:
        return asyncio.Handle(callback, (), asyncio.get_running_loop())


class Owner:
    """Whoever waits for a ticket."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def on_routed(self, effect: Routed) -> None:
        self._rig.routed.append(effect.ticket)

    def on_rejected(self, effect: Rejected) -> None:
        self._rig.rejected += 1

    def on_abort(self, effect: Any) -> None:
        self._rig.aborted.append(effect.ticket)

    def on_withdraw(self, effect: Any) -> None:
        """What it waits for here is an answer that a test gives."""


@dataclass
class Machine:
    """One replica that really exists."""

    name: str
    phase: Phase
    port: int
    asked_at: float
    ready_at: float | None = None


@dataclass
class FakeActuator:
    """Starts in no time and says so, unless a test says otherwise."""

    pool: str
    now: Callable[[], float]
    machines: dict[str, Machine] = field(default_factory=dict)
    asked: list[Action] = field(default_factory=list)
    """Everything that reached it."""
    fail_observe: Exception | None = None
    fail_apply: Exception | None = None
    hang: asyncio.Event | None = None
    """Set: every call waits for it."""
    hidden: set[str] = field(default_factory=set)
    """Not to be seen; observations are incomplete then."""
    wanted_by_others: int | None = None
    starts: bool = True
    """False: what is started stays as it is."""
    deaf: bool = False
    """True: it says yes and does nothing."""
    closed: int = 0
    ports = itertools.count(8000)

    def add(self, name: str, phase: Phase = Phase.READY) -> Machine:
        one = Machine(name, phase, next(self.ports), self.now(), self.now() if phase is Phase.READY else None)
        self.machines[name] = one
        return one

    async def observe(self) -> Observation:
        if self.hang is not None:
            await self.hang.wait()
        if self.fail_observe is not None:
            raise self.fail_observe
        for one in self.machines.values():
            if one.phase is Phase.STARTING and self.starts:
                one.phase, one.ready_at = Phase.READY, self.now()
        seen = [self._seen(one) for name, one in self.machines.items() if name not in self.hidden]
        for name in [name for name, one in self.machines.items() if one.phase is Phase.STOPPING]:
            del self.machines[name]
        return Observation(self.now(), tuple(seen), complete=not self.hidden, wanted_by_others=self.wanted_by_others)

    def _seen(self, one: Machine) -> Observed:
        since = one.ready_at if one.phase is Phase.READY else one.asked_at
        fact = ReplicaFact(one.name, one.phase, start_id=one.name, since_s=since)
        return Observed(fact, Endpoint(id=one.name, host="10.0.0.1", port=one.port, models=("m",)))

    async def apply(self, action: Action) -> None:
        if self.hang is not None:
            await self.hang.wait()
        if self.fail_apply is not None:
            raise self.fail_apply
        self.asked.append(action)
        if self.deaf:
            return
        match action:
            case ScaleUp(start_ids=names):
                for name in names:
                    if name not in self.machines:
                        self.add(name, Phase.STARTING)
            case Stop(replica=name):
                if name in self.machines:
                    self.machines[name].phase = Phase.STOPPING
            case GiveUp(start_id=name):
                one = self.machines.get(name or "")
                if one is not None and one.phase is not Phase.READY:
                    one.phase = Phase.STOPPING
            case Drain() | Undrain():
                pass

    async def close(self) -> None:
        self.closed += 1

    def names(self, kind: type[Action]) -> list[str]:
        """Replicas (or starts) that actions of this kind named, in order."""
        found: list[str] = []
        for one in self.asked:
            if isinstance(one, kind):
                found += one.start_ids if isinstance(one, ScaleUp) else [one.replica or ""]  # type: ignore[union-attr]
        return found


class Rig:
    """One gateway, one loop, an actuator per pool. `now` moves by `tick`."""

    def __init__(self, *pools: PoolSettings, interval_s: float = 15.0, **options: Any) -> None:
        self.now = 10_000.0
        self.wall_offset = 1_700_000_000.0
        self.clock = Clock(lambda: self.now, lambda: self.now + self.wall_offset)
        self.settings = ScalingSettings(interval_s=interval_s, pools=pools)
        self.store = Store(None, wall=self.clock.wall)
        self.actuators = {pool.name: FakeActuator(pool.name, lambda: self.now) for pool in pools}
        self.options = options
        self.routed: list[Ticket] = []
        self.aborted: list[Ticket] = []
        self.rejected = 0
        self.loads: dict[str, RuntimeLoad] = {}
        """What runtimes say of themselves, by replica."""
        self._ids = itertools.count()
        self._epochs = itertools.count(1)
        self.born()

    def born(self) -> None:
        """A new process: an empty balancer and a loop that knows nothing yet."""
        self.registry = CollectorRegistry()
        # Requests here last as long as a test wants; that is no sign of a hung replica.
        health = {"warmup_s": 0.0, "progress_min_s": 86_400.0}
        lb = LbSettings.model_validate({"admission": {"default_max_in_flight": 8}, "health": health})
        self.gateway = Gateway(lb, StillLoop(lambda: self.now), random.Random(1))  # type: ignore[arg-type]
        self.gateway.now = lambda: self.now
        self.loop = ControlLoop(
            self.gateway, self.settings, self.hands(), self.store, self.clock, ControlMetrics(self.registry),
            boot="boot-1", epoch=f"e{next(self._epochs)}-", **self.options,
        )  # fmt: skip

    def hands(self) -> dict[str, Hands]:
        return {
            name: Hands(name, actuator, lambda: self.now, observe_s=0.02, apply_s=0.02)
            for name, actuator in self.actuators.items()
        }

    @property
    def actuator(self) -> FakeActuator:
        (one,) = self.actuators.values()
        return one

    async def start(self, ready: int = 0) -> Rig:
        """Begin with this many ready replicas in the only pool."""
        await self.store.start()
        for number in range(ready):
            self.actuator.add(f"old-{number}")
        await self.loop.begin()
        self.probe()
        return self

    def probe(self) -> None:
        """The balancer's probes find what runs."""
        for actuator in self.actuators.values():
            for one in actuator.machines.values():
                for _ in range(3 if one.phase is Phase.READY else 0):
                    self.gateway.observe_probe(one.name, READY)

    async def tick(self, times: int = 1, after_s: float | None = None) -> Tick | None:
        """Let time pass and tick; the balancer's probes run in between."""
        done = None
        for _ in range(times):
            self.now += self.settings.interval_s if after_s is None else after_s
            self.gateway.apply(self.gateway.balancer.poll(self.now))
            self.probe()
            for name, load in self.loads.items():
                self.gateway.observe_load(name, load)
            done = await self.loop.tick()
        return done

    async def until_gone(self, name: str, most: int = 60) -> int:
        """Ticks until a machine is no more."""
        for count in range(most):
            if name not in self.actuator.machines:
                return count
            await self.tick()
        raise AssertionError(f"{name} is still there after {most} ticks: {self.actuator.machines[name]}")

    def offer(self, model: str = "m") -> Ticket | None:
        """One request; its ticket if it was routed or waits."""
        info = RequestInfo(
            id=f"r{next(self._ids)}", model=model, surface=SurfaceName.CHAT, prompt_tokens=500, max_tokens=200,
            stream=True,
        )  # fmt: skip
        decision = self.gateway.balancer.offer(info, self.now, Owner(self))
        return decision.ticket if isinstance(decision, Routed | Queued) else None

    def finish(self, ticket: Ticket, outcome: Outcome = Outcome.OK) -> None:
        ticket.events, ticket.bytes_out, ticket.progress_at = 100, 10_000, self.now
        self.gateway.apply(self.gateway.balancer.finish(ticket, outcome, self.now, usage=Usage(500, 100)))

    def finish_all(self, *tickets: Ticket | None) -> None:
        """End these, and whatever then leaves the queue."""
        for ticket in tickets:
            if ticket is not None and ticket.state is TicketState.ROUTED:
                self.finish(ticket)
        while self.routed:
            ticket = self.routed.pop()
            if ticket.state is TicketState.ROUTED:
                self.finish(ticket)

    def state(self, name: str) -> str:
        return str(self.gateway.balancer.replicas[name].state)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def down(reason: str = "connection refused", retry_after_s: float | None = None) -> ActuatorError:
    return ActuatorError(reason, retry_after_s=retry_after_s)
