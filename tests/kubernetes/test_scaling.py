"""Replicas as pods of a Deployment, a StatefulSet, or anything with the scale subresource."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from autoscaler.action import Drain, GiveUp, Stop, Undrain
from autoscaler.actuator import ActuatorError
from autoscaler.actuators.kubernetes.marks import DRAINING, STAY
from autoscaler.actuators.kubernetes.pods import START_ID
from autoscaler.actuators.kubernetes.removal import COST, LOWEST_COST
from autoscaler.fleet import Phase, Stage
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.scaled import POOL, Scene, phases, ready, settings_of, until, up


@pytest.fixture
async def scene(cluster: Cluster, namespace: str) -> AsyncIterator[Scene]:
    made = Scene(cluster, namespace)
    yield made
    await made.close()


async def test_replicas_are_raised_and_pods_get_their_names_and_milestones(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator()
    await until(actuator, ready(1))
    await actuator.apply(up(3, "chat-1", "chat-2"))
    assert scene.replicas() == 3
    seen = await until(actuator, ready(3))
    assert {one.fact.start_id for one in seen.replicas} == {None, "chat-1", "chat-2"}
    for one in seen.replicas:
        stages = one.fact.stages
        assert [stage for stage in Stage if stage in stages] == [
            Stage.REQUESTED, Stage.NODE, Stage.GPU, Stage.IMAGE, Stage.WARM,
        ]  # fmt: skip
        assert list(stages.values()) == sorted(stages.values())
        assert stages[Stage.WARM] <= seen.at
    assert {one.fact.id for one in seen.replicas} == set(scene.pods())
    names = {pod["metadata"]["annotations"].get(START_ID) for pod in scene.pods().values()}
    assert names == {None, "chat-1", "chat-2"}, "names are written on pods, so that the next process knows them"


async def test_asking_again_for_the_same_starts_raises_nothing_also_after_a_restart(scene: Scene) -> None:
    scene.deploy("llm", 0)
    first = scene.actuator()
    for _ in range(2):
        await first.apply(up(2, "chat-1", "chat-2"))
    assert scene.replicas() == 2
    await until(first, ready(2))
    second = scene.actuator()
    await second.apply(up(2, "chat-1", "chat-2"))
    assert scene.replicas() == 2


async def test_j21_the_drained_pod_goes_and_no_other(scene: Scene) -> None:
    scene.deploy("llm", 4)
    actuator = scene.actuator()
    seen = await until(actuator, ready(4))
    # The oldest by name: a ReplicaSet left to itself would take another one.
    victim = min(one.fact.id for one in seen.replicas)
    others = {one.fact.id for one in seen.replicas} - {victim}
    await actuator.apply(Drain(POOL, victim, 60.0, "demand falls"))
    assert scene.pods()[victim]["metadata"]["annotations"][DRAINING] == "demand falls"
    assert scene.replicas() == 4
    for _ in range(2):
        await actuator.apply(Stop(POOL, victim, 3, "drained"))
    assert scene.replicas() == 3
    await scene.eventually(lambda: set(scene.pods()) == others, "only the drained pod is gone")
    await actuator.apply(Stop(POOL, victim, 3, "drained"))
    assert scene.replicas() == 3


async def test_a_pod_that_is_taken_back_loses_its_mark_and_its_place_in_the_queue(scene: Scene) -> None:
    scene.deploy("llm", 2)
    actuator = scene.actuator()
    seen = await until(actuator, ready(2))
    victim = seen.replicas[0].fact.id
    await actuator.apply(Drain(POOL, victim, 60.0, "r"))
    await actuator.apply(Undrain(POOL, victim, "wanted again"))
    notes = scene.pods()[victim]["metadata"]["annotations"]
    assert DRAINING not in notes
    assert COST not in notes


async def test_j21_a_ready_pod_goes_although_a_replica_set_would_rather_take_one_that_starts(scene: Scene) -> None:
    """ReplicaSets end pods that are not ready first, whatever their deletion cost."""
    scene.deploy("llm", 2, annotations={"test/ready-delay": "1h"})
    actuator = scene.actuator()
    await scene.eventually(lambda: len(scene.pods()) == 2, "two pods")
    scene.release(*scene.pods())
    seen = await until(actuator, ready(2))
    before = {one.fact.id for one in seen.replicas}
    victim = min(before)
    await actuator.apply(up(3, "slow"))
    await until(actuator, lambda seen: phases(seen) == [Phase.READY, Phase.READY, Phase.STARTING])
    await actuator.apply(Stop(POOL, victim, 2, "drained"))
    await scene.eventually(lambda: len(scene.pods()) == 2 and scene.replicas() == 2, "one pod less")
    assert victim not in scene.pods()
    assert before - {victim} <= set(scene.pods()), "the other ready pod serves on"


async def test_pods_are_kept_where_they_are_only_while_they_start(scene: Scene) -> None:
    scene.deploy("llm", 1, annotations={"test/ready-delay": "1h"})
    actuator = scene.actuator()
    await until(actuator, lambda seen: phases(seen) == [Phase.STARTING])
    (uid,) = scene.pods()
    await until(actuator, lambda _: STAY.items() <= scene.pods()[uid]["metadata"]["annotations"].items())
    scene.release(uid)
    await until(actuator, ready(1))
    await until(actuator, lambda _: not STAY.keys() & scene.pods()[uid]["metadata"]["annotations"].keys())


async def test_annotations_of_others_are_left_as_they_are(scene: Scene) -> None:
    operators = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
    scene.deploy("llm", 1, annotations={"test/ready-delay": "1h", **operators})
    actuator = scene.actuator()
    await until(actuator, lambda seen: phases(seen) == [Phase.STARTING])
    (uid,) = scene.pods()
    await until(actuator, lambda _: "karpenter.sh/do-not-disrupt" in scene.pods()[uid]["metadata"]["annotations"])
    assert operators.items() <= scene.pods()[uid]["metadata"]["annotations"].items()


async def test_a_start_that_is_given_up_goes_and_a_ready_one_stays(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator()
    seen = await until(actuator, ready(1))
    (served,) = (one.fact.id for one in seen.replicas)
    await actuator.apply(GiveUp(POOL, None, served, 0, "late"))
    assert scene.replicas() == 1
    await actuator.apply(up(2, "late"))
    seen = await until(actuator, ready(2))
    await actuator.apply(GiveUp(POOL, "late", None, 1, "late"))
    assert scene.replicas() == 2, "it became ready in time"


async def test_a_start_that_never_was_a_pod_is_given_up_by_the_number(scene: Scene) -> None:
    """Three places are all there is; the fourth pod waits."""
    node = f"small-{scene.namespace}"
    scene.cluster.add_node(node, gpus=3)
    scene.deploy("llm", 0, nodeSelector={"kubernetes.io/hostname": node})
    actuator = scene.actuator(settings_of("llm", full_s=0.5))
    await actuator.apply(up(4, "a", "b", "c", "d"))
    seen = await until(
        actuator, lambda seen: phases(seen).count(Phase.STARTING) == 1 and phases(seen).count(Phase.READY) == 3
    )
    (late,) = (one for one in seen.replicas if one.fact.phase is Phase.STARTING)
    assert "Insufficient nvidia.com/gpu" in late.detail, "people are told what it waits for"
    assert Stage.NODE not in late.fact.stages
    seen = await until(actuator, lambda seen: seen.full == {"default"})
    await actuator.apply(GiveUp(POOL, late.fact.start_id, late.fact.id, 3, "no GPU"))
    assert scene.replicas() == 3
    await until(actuator, lambda seen: ready(3)(seen) and not seen.full)


async def test_a_stateful_set_ends_its_highest_ordinal_and_says_so(scene: Scene) -> None:
    scene.deploy("llm", 3, kind="StatefulSet")
    actuator = scene.actuator(settings_of("llm", resource="statefulsets"))
    seen = await until(actuator, ready(3))
    ordinals = {uid: pod["metadata"]["name"] for uid, pod in scene.pods().items()}
    free = [ordinals[one.fact.id] for one in seen.replicas if not one.fact.protected]
    assert free == ["llm-2"], "only the last one is offered as a victim"
    lowest = next(uid for uid, name in ordinals.items() if name == "llm-0")
    with pytest.raises(ActuatorError, match="llm-0 cannot go before llm-2"):
        await actuator.apply(Stop(POOL, lowest, 2, "drained"))
    assert scene.replicas(resource="statefulsets") == 3
    highest = next(uid for uid, name in ordinals.items() if name == "llm-2")
    await actuator.apply(Stop(POOL, highest, 2, "drained"))
    await scene.eventually(
        lambda: {pod["metadata"]["name"] for pod in scene.pods().values()} == {"llm-0", "llm-1"}, "llm-2 is gone"
    )


async def test_two_kinds_are_two_workloads(scene: Scene) -> None:
    scene.deploy("llm", 1)
    scene.deploy("spot", 1)
    actuator = scene.actuator(settings_of("llm", "spot"))
    await until(actuator, ready(2))
    await actuator.apply(up(4, "s1", "s2", kind="spot"))
    assert (scene.replicas("llm"), scene.replicas("spot")) == (1, 3)
    seen = await until(actuator, ready(4))
    assert sorted(one.fact.kind for one in seen.replicas) == ["default", "spot", "spot", "spot"]
    victim = next(one.fact.id for one in seen.replicas if one.fact.start_id == "s1")
    await actuator.apply(Stop(POOL, victim, 3, "drained"))
    assert (scene.replicas("llm"), scene.replicas("spot")) == (1, 2)
    with pytest.raises(ActuatorError, match="no workload of kind 'h100'"):
        await actuator.apply(up(4, "h1", kind="h100"))


async def test_j21_the_mark_is_there_before_the_number_is_lowered(scene: Scene) -> None:
    scene.deploy("llm", 3, annotations={"test/exit-after": "2s"})
    actuator = scene.actuator()
    seen = await until(actuator, ready(3))
    victim = seen.replicas[0].fact.id
    name = scene.pods()[victim]["metadata"]["name"]
    await actuator.apply(Stop(POOL, victim, 2, "drained"))
    pod = scene.cluster.call("GET", f"/api/v1/namespaces/{scene.namespace}/pods/{name}")[1]
    assert pod["metadata"]["annotations"][COST] == str(LOWEST_COST)
    await until(actuator, ready(2))


async def test_in_another_mode_nothing_is_written(scene: Scene) -> None:
    scene.deploy("llm", 1, annotations={"test/ready-delay": "1h"})
    actuator = scene.actuator(owns=False)
    await until(actuator, lambda seen: phases(seen) == [Phase.STARTING])
    (pod,) = scene.pods().values()
    assert not STAY.keys() & pod["metadata"]["annotations"].keys()
    with pytest.raises(ActuatorError, match="not in mode own"):
        await actuator.apply(up(2, "a"))
    assert scene.replicas() == 1
