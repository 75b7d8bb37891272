"""Numbers that are written, and pods that go because of them: on paper, with everything in between that can happen."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.actuator import ActuatorError
from autoscaler.actuators.kubernetes.side import Side
from autoscaler.policy.kubernetes import KubernetesSettings
from lb.clock import Clock
from tests.autoscaler.actuators.replica_set import ReplicaSet

SETTINGS = KubernetesSettings.model_validate({"type": "kubernetes", "workloads": [{"name": "llm"}]})
CLOCK = Clock(monotonic=lambda: 1000.0, wall=lambda: 1_767_225_600.0)


def side_on(replica_set: ReplicaSet, *, alone: bool = True) -> Side:
    return Side(SETTINGS, replica_set, CLOCK, alone=alone, owns=True)  # type: ignore[arg-type]


def settled(replicas: int) -> ReplicaSet:
    """So many ready pods."""
    made = ReplicaSet(random.Random(1), replicas)
    made.reconcile()
    for uid in made.pods:
        made.ready(uid)
    return made


async def test_a_start_raises_the_number_once_however_often_it_is_asked_for() -> None:
    world = settled(2)
    side = side_on(world)
    for _ in range(3):
        await side.scale_up(("a",), 3)
    assert world.writes == [3]


async def test_a_stop_lowers_it_once_however_often_it_is_asked_for() -> None:
    world = settled(3)
    side = side_on(world)
    await side.look()
    for _ in range(3):
        await side.stop("pod-2", 2)
    assert world.writes == [2]
    world.reconcile()
    await side.stop("pod-2", 2)
    assert world.writes == [2]
    assert world.ended_ready == ["pod-2"]


async def test_pods_that_drain_keep_their_place_in_the_number() -> None:
    world = settled(3)
    side = side_on(world)
    await side.look()
    await side.drain("pod-1", "demand falls")
    await side.scale_up(("a",), 3)
    assert world.writes == [4], "two that serve, one that drains, one that starts"


async def test_a_total_that_is_too_low_does_not_end_pods_that_nobody_was_told_of() -> None:
    world = settled(5)
    side = side_on(world)
    await side.look()
    await side.stop("pod-3", 0)
    assert world.writes == [4]
    await side.give_up(None, None, 0)
    assert world.writes == [4]


async def test_names_are_given_to_new_pods_in_the_order_in_which_they_were_asked_for() -> None:
    world = settled(1)
    side = side_on(world)
    await side.look()
    await side.scale_up(("a", "b"), 3)
    world.reconcile()
    await side.look()
    names = {one.fact.id: one.fact.start_id for one in side.replicas({})}
    assert names == {"pod-1": None, "pod-2": "a", "pod-3": "b"}


async def test_a_start_that_is_withdrawn_before_it_is_a_pod_only_lowers_the_number() -> None:
    world = settled(2)
    side = side_on(world)
    await side.look()
    await side.scale_up(("a", "b"), 4)
    await side.give_up("a", None, 3)
    assert world.writes == [4, 3]
    world.reconcile()
    assert world.ended_ready == []


async def test_kinds_beside_others_count_by_names_and_not_by_the_pools_total() -> None:
    world = settled(1)
    side = side_on(world, alone=False)
    await side.look()
    await side.scale_up(("a", "b"), 17)
    assert world.writes == [3]
    await side.give_up("b", None, 16)
    assert world.writes == [3, 2]


async def test_a_pod_that_is_taken_back_while_a_lower_number_is_on_its_way_stays() -> None:
    world = settled(3)
    side = side_on(world)
    await side.look()
    await side.stop("pod-2", 2)
    await side.undrain("pod-2")
    assert world.writes == [2, 3]
    world.reconcile()
    assert world.ended_ready == []


async def test_pods_that_were_still_to_come_at_a_restart_are_not_taken_back_by_another_action() -> None:
    world = settled(2)
    world.replicas = 4  # two more were asked for by the process before
    side = side_on(world, alone=False)
    await side.look()
    await side.give_up("of-another-kind", None, 9)
    assert world.writes == []
    await side.scale_up(("a",), 9)
    assert world.writes == [5]
    world.reconcile()
    await side.look()
    assert [one.fact.start_id for one in side.replicas({})] == [None, None, None, None, "a"]


async def test_a_ready_pod_is_evicted_where_the_number_would_take_one_that_starts() -> None:
    world = settled(2)
    side = side_on(world)
    await side.look()
    await side.scale_up(("a",), 3)
    world.reconcile()
    await side.stop("pod-1", 2)
    world.reconcile()
    assert world.evicted == ["pod-1"]
    assert sorted(one["metadata"]["uid"] for one in world.active()) == ["pod-2", "pod-3"]
    assert world.replicas == 2


async def test_a_failure_between_mark_and_number_is_made_good_at_the_next_try() -> None:
    world = settled(3)
    side = side_on(world)
    await side.look()
    world.faults, written = 1.0, list(world.writes)
    with pytest.raises(ActuatorError):
        await side.stop("pod-1", 2)
    assert world.writes == written
    world.faults = 0.0
    await side.stop("pod-1", 2)
    world.reconcile()
    assert world.ended_ready == ["pod-1"]


async def test_a_pod_that_is_taken_back_after_a_failed_stop_is_not_ended_by_a_later_one() -> None:
    world = settled(3)
    side = side_on(world)
    await side.look()
    world.scale = _refuse  # type: ignore[method-assign]
    with pytest.raises(ActuatorError):
        await side.stop("pod-1", 2)
    del world.scale  # type: ignore[method-assign]
    await side.undrain("pod-1")
    await side.stop("pod-2", 2)
    world.reconcile()
    assert world.ended_ready == ["pod-2"]


async def _refuse(*_: object) -> None:
    raise ActuatorError("no")


class Chaos:
    """Actions, faults and accidents in any order."""

    def __init__(self, seed: int, faults: float) -> None:
        self.rng = random.Random(seed)
        self.world = ReplicaSet(self.rng, self.rng.randint(0, 4), faults=faults, accidents=0.3)
        self.side = side_on(self.world)
        self.told: set[str] = set()
        """Pods that were stopped. A start that is given up must not be ready when it ends."""
        self.highest = self.world.replicas
        self.names = 0

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            await self.step()
            unasked = [uid for uid in self.world.ended_ready if uid not in self.told]
            assert unasked == [], f"ended without having been told to: {unasked}"
            assert self.world.replicas <= self.highest, "nobody asked for so many"

    async def step(self) -> None:
        world, rng = self.world, self.rng
        uids = [one["metadata"]["uid"] for one in world.active()]
        some = rng.choice(uids) if uids else None
        accident = rng.random()
        if accident < 0.25:
            world.reconcile()
        elif accident < 0.3:
            world.sweep()
        elif accident < 0.4 and some is not None:
            world.place(some)
        elif accident < 0.55 and some is not None:
            world.ready(some)
        elif accident < 0.6 and some is not None:
            world.ready(some, False)
        elif accident < 0.62 and some is not None:
            world.fail(some)
        elif accident < 0.64:
            self.side = side_on(world)  # the controller starts anew and has forgotten everything
        else:
            try:
                await self.act(uids, some)
            except ActuatorError:
                return

    async def act(self, uids: list[str], some: str | None) -> None:
        rng, side = self.rng, self.side
        total = rng.randint(0, 6)
        choice = rng.random()
        if choice < 0.25:
            names = tuple(f"s{self.names + index}" for index in range(rng.randint(1, 2)))
            self.names += len(names)
            self.highest = max(self.highest, max(len(uids), self.world.replicas) + self.names + total)
            await side.scale_up(names, total)
        elif choice < 0.4 and some is not None:
            await side.look()
            await side.drain(some, "r")
        elif choice < 0.5 and some is not None and some not in self.told:
            await side.undrain(some)
        elif choice < 0.75 and some is not None:
            self.told.add(some)
            await side.stop(some, total)
        elif choice < 0.9:
            await side.give_up(f"s{rng.randint(0, 9)}", rng.choice([some, None]), total)
        else:
            await side.look()
            await side.keep_marks(8)


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32), faults=st.sampled_from([0.0, 0.1, 0.4]))
async def test_j24_a_ready_pod_ends_only_if_it_was_told_to_whatever_fails(seed: int, faults: float) -> None:
    await Chaos(seed, faults).run(60)
