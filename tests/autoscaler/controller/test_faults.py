"""10,000 random fault sequences: limits hold, nothing is lowered on ignorance, nothing that runs is cut.

A small world carries the actions out, badly: actions get lost, starts hang or fail, replicas die, observations are
missing, stale, partial, duplicated or nonsense.
"""

from __future__ import annotations

import random
from math import inf, nan

import pytest

from autoscaler.action import Action, Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.controller import Controller, Tick
from autoscaler.decide.observation import PoolDemand
from autoscaler.decide.outlook import Outlook
from autoscaler.fleet import Phase, PoolFleet, ReplicaFact
from autoscaler.policy.pools import (
    BudgetSettings,
    CapacitySettings,
    DownSettings,
    KindSettings,
    Mode,
    PoolSettings,
    RateSettings,
    ReactiveRule,
    ScalingSettings,
    StartSettings,
)

SEQUENCES = 10_000
TICKS = 14
BAD = (None, nan, inf, -1.0, 1e308)


class World:
    """Replicas that really exist, whatever anybody believes."""

    def __init__(self, rng: random.Random, pool: PoolSettings) -> None:
        self.rng = rng
        self.pool = pool
        self.replicas: dict[str, dict[str, object]] = {}
        self.count = 0
        self.chaos = rng.choice((0.05, 0.3, 1.0))
        """How often things go wrong: where they always do, nothing is ever lowered, and that proves little."""
        self.kinds = [kind.name for kind in pool.kinds]
        for _ in range(rng.randint(0, pool.max_replicas)):
            self.add(None, Phase.READY, rng.choice(self.kinds))

    def add(self, start_id: str | None, phase: Phase, kind: str) -> None:
        self.count += 1
        self.replicas[f"w{self.count}"] = {
            "phase": phase, "kind": kind, "start_id": start_id, "in_flight": self.rng.randint(0, 5),
        }  # fmt: skip

    def supply(self) -> int:
        return sum(one["phase"] in (Phase.READY, Phase.STARTING) for one in self.replicas.values())

    def carry_out(self, action: Action, twice: bool) -> None:
        for _ in range(2 if twice else 1):
            match action:
                case ScaleUp(kind=kind, start_ids=ids):
                    known = {one["start_id"] for one in self.replicas.values()}
                    for start_id in ids:
                        if start_id not in known:
                            self.add(start_id, Phase.STARTING, kind)
                case Drain(replica=id_):
                    if id_ in self.replicas and self.replicas[id_]["phase"] is Phase.READY:
                        self.replicas[id_]["phase"] = Phase.DRAINING
                case Undrain(replica=id_):
                    if id_ in self.replicas and self.replicas[id_]["phase"] is Phase.DRAINING:
                        self.replicas[id_]["phase"] = Phase.READY
                case Stop(replica=id_):
                    one = self.replicas.pop(id_, None)
                    if one is not None and one["phase"] is not Phase.FAILED:
                        assert one["in_flight"] == 0, "a replica with running requests was stopped"
                case GiveUp(start_id=start_id, replica=id_):
                    for key, one in list(self.replicas.items()):
                        meant = key == id_ or (start_id is not None and one["start_id"] == start_id)
                        # The contract of the action: one that has become ready is left alone.
                        if meant and one["phase"] not in (Phase.READY, Phase.DRAINING):
                            del self.replicas[key]

    def pass_time(self) -> None:
        rng = self.rng
        for one in self.replicas.values():
            if one["phase"] is Phase.STARTING and rng.random() < 0.3:
                one["phase"] = Phase.FAILED if rng.random() < 0.2 else Phase.READY
            elif one["phase"] is Phase.DRAINING:
                one["in_flight"] = max(0, int(str(one["in_flight"])) - rng.randint(0, 3))
            elif one["phase"] is Phase.READY:
                one["in_flight"] = rng.randint(0, 5)

    def look(self, now: float) -> PoolFleet | None:
        rng = self.rng
        fate = rng.random() / self.chaos
        if fate < 0.1:
            return None
        age = rng.choice((300.0, 3600.0, -500.0)) if fate < 0.2 else rng.uniform(0.0, 10.0)
        facts = [
            ReplicaFact(
                key, one["phase"], str(one["kind"]), one["start_id"] if rng.random() < 0.8 else None,  # type: ignore[arg-type]
                in_flight=int(str(one["in_flight"])), work_left_s=rng.choice((None, 1.0, 50.0)),
                protected=rng.random() < 0.05,
            )
            for key, one in self.replicas.items()
        ]  # fmt: skip
        complete = rng.random() > 0.15 * self.chaos
        if not complete and facts:
            del facts[rng.randrange(len(facts))]
        others = rng.randint(0, 30) if rng.random() < 0.03 else None
        full = frozenset(self.kinds[:1]) if rng.random() < 0.1 else frozenset()
        return PoolFleet(now - age, tuple(facts), complete, others, full)


def settings(rng: random.Random) -> ScalingSettings:
    most = rng.randint(1, 12)
    kinds = [KindSettings(gpus=rng.randint(1, 2), speed=1.0)]
    if rng.random() < 0.3:
        kinds.append(KindSettings(name="spot", spot=True, gpu_hour=1.0, speed=rng.choice((1.0, 0.5))))
    pool = PoolSettings(
        name="p",
        mode=Mode.OWN,
        min_replicas=rng.randint(0, most),
        max_replicas=most,
        capacity=CapacitySettings(per_replica=rng.choice((None, 1.0, 3.0))),
        rules=(ReactiveRule(signal="gpu_utilization", above=0.8, duration_s=30.0),) if rng.random() < 0.5 else (),
        down=DownSettings(hold_s=rng.choice((0.0, 30.0)), payback_s=0.0, drain_s=30.0),
        rate=RateSettings(
            up_step=rng.randint(1, 4), down_step=rng.randint(1, 4), up=rng.randint(2, 8), down=rng.randint(2, 8)
        ),
        start=StartSettings(p50_s=30.0, p95_s=60.0, give_up_s=100.0, unseen_s=40.0, rest_s=60.0),
        kinds=tuple(kinds),
    )
    budget = BudgetSettings(gpus=rng.choice((None, rng.randint(1, 12))), money_per_hour=rng.choice((None, 20.0)))
    return ScalingSettings(pools=(pool,), budget=budget)


def demand(rng: random.Random, now: float, chaos: float, level: float) -> PoolDemand | None:
    if rng.random() < 0.1 * chaos:
        return None

    def number(high: float) -> float | None:
        return rng.choice(BAD) if rng.random() < 0.15 * chaos else rng.uniform(0.0, high)

    age = rng.choice((500.0, -100.0)) if rng.random() < 0.1 * chaos else 1.0
    return PoolDemand(
        at=now - age, requests_per_s=number(level), in_flight=number(300.0), queued=number(level),
        backlog_s=number(8.0 * level),
        offered_total=number(1e5), missed_total=number(1e3), served_per_s=number(level),
        gpu_utilization=number(min(1.0, level / 20.0)),
    )  # fmt: skip


def outlook(rng: random.Random, now: float) -> Outlook | None:
    if rng.random() < 0.5:
        return None
    value = rng.choice((nan, inf, -5.0, 1e300)) if rng.random() < 0.3 else rng.uniform(0.0, 60.0)
    return Outlook(
        now - rng.choice((0.0, 5000.0)), (60.0, 600.0), (0.5, 0.9), ((value, value), (value, 2 * value)),
        trusted=rng.random() < 0.7,
    )  # fmt: skip


def known_good(reading: PoolDemand | None, fleet: PoolFleet | None, now: float) -> bool:
    """Demand and fleet are known: only then may anything be lowered."""
    if reading is None or fleet is None or not 0.0 <= now - reading.at <= 60.0 or not 0.0 <= now - fleet.at <= 60.0:
        return False
    rate = reading.requests_per_s
    return rate is not None and 0.0 <= rate < 1e15


def check(tick: Tick, world: World, pool: PoolSettings, reading: PoolDemand | None, fleet: PoolFleet | None) -> None:
    (decision,) = tick.decisions
    started = sum(
        len(one.start_ids) for one in tick.actions if isinstance(one, ScaleUp) and "never seen" not in one.reason
    )
    lowered = [one for one in tick.actions if isinstance(one, Drain) and one.reason != "still to be cordoned"]
    assert started <= pool.rate.up_step or decision.binding == "others"
    assert len(lowered) <= max(pool.rate.down_step, decision.supply - pool.max_replicas)
    if fleet is None or not 0.0 <= decision.at - fleet.at <= 60.0:
        assert not tick.actions, "acted on a fleet that is not known"
    if decision.binding == "others":
        return
    if decision.change < 0 and decision.supply <= pool.max_replicas:
        assert known_good(reading, fleet, decision.at), f"lowered on ignorance: {decision}"
        assert fleet is not None
        assert fleet.complete
        assert decision.desired >= min(pool.min_replicas, decision.supply)


def run(seed: int) -> tuple[int, int]:
    rng = random.Random(seed)
    policy = settings(rng)
    (pool,) = policy.pools
    world = World(rng, pool)
    controller = Controller(policy)
    now, ups, downs = 1000.0, [], []
    level = rng.uniform(0.0, 30.0)
    for _ in range(TICKS):
        if rng.random() < 0.2:
            level = rng.choice((0.2, rng.uniform(0.0, 30.0)))
        now += rng.choice((5.0, 15.0, 45.0))
        world.pass_time()
        fleet, reading = world.look(now), demand(rng, now, world.chaos, level)
        ahead = outlook(rng, now)
        before = world.supply()
        tick = controller.tick(
            {} if fleet is None else {"p": fleet}, {} if reading is None else {"p": reading},
            {} if ahead is None else {"p": ahead}, now=now, wall=now,
        )  # fmt: skip
        check(tick, world, pool, reading, fleet)
        for action in tick.actions:
            if rng.random() > 0.15:
                world.carry_out(action, twice=rng.random() < 0.2)
        asked = [one for one in tick.actions if isinstance(one, ScaleUp) and "never seen" not in one.reason]
        ups += [now] * sum(len(one.start_ids) for one in asked)
        downs += [now] * sum(isinstance(one, Drain) and one.reason != "still to be cordoned" for one in tick.actions)
        human = tick.decisions[0].binding == "others"
        if asked and not human:
            assert world.supply() <= max(pool.max_replicas, before), "more than max_replicas were started"
            assert len(ups) <= pool.rate.up, "more were started in the window than the rate allows"
        budget = policy.budget.gpus
        if asked and budget is not None:
            gpus = {kind.name: kind.gpus for kind in pool.kinds}
            assert fleet is not None
            seen = {one.id for one in fleet.replicas}
            if fleet.complete:
                taken = sum(gpus[str(one["kind"])] for one in world.replicas.values())
                assert taken <= budget, f"{taken} GPUs with a budget of {budget}; seen {len(seen)}"
    return len(ups), len(downs)


@pytest.mark.parametrize("part", range(10))
def test_limits_hold_under_random_faults(part: int) -> None:
    ups = downs = 0
    for seed in range(part * SEQUENCES // 10, (part + 1) * SEQUENCES // 10):
        try:
            up, down = run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        ups, downs = ups + up, downs + down
    # The sequences do exercise both directions, or they would prove nothing.
    assert ups > 1000
    assert downs > 300
