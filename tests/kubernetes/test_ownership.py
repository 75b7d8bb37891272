"""Who else sets the number of replicas: found, respected or left to it, never fought."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from autoscaler.actuator import ActuatorError
from tests.kubernetes import fleets
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.scaled import Scene, phases, ready, settings_of, until, up

APPLY = "application/apply-patch+yaml"


@pytest.fixture
async def scene(cluster: Cluster, namespace: str) -> AsyncIterator[Scene]:
    made = Scene(cluster, namespace)
    yield made
    await made.close()


def autoscaler(scene: Scene, target: str, owner: dict[str, Any] | None = None) -> None:
    body = {
        "metadata": {"name": f"hpa-{target}", "ownerReferences": [owner] if owner else []},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "minReplicas": 1,
            "maxReplicas": 5,
        },
    }
    scene.cluster.create(f"/apis/autoscaling/v2/namespaces/{scene.namespace}/horizontalpodautoscalers", body)


async def test_j12_an_autoscaler_on_the_same_target_is_left_to_it(scene: Scene) -> None:
    scene.deploy("llm", 2)
    autoscaler(scene, "llm")
    actuator = scene.actuator()
    seen = await until(actuator, ready(2))
    assert seen.wanted_by_others == 2
    with pytest.raises(ActuatorError, match="HorizontalPodAutoscaler hpa-llm scales Deployment llm; Tidegate does not"):
        await actuator.apply(up(3, "a"))
    assert scene.replicas() == 2


async def test_j12_keda_is_named_by_its_own_object(scene: Scene) -> None:
    scene.deploy("llm", 1)
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "chat", "uid": "1-2-3"}
    autoscaler(scene, "llm", owner)
    actuator = scene.actuator()
    await until(actuator, ready(1))
    with pytest.raises(ActuatorError, match=r"ScaledObject chat \(KEDA\) scales Deployment llm"):
        await actuator.apply(up(2, "a"))


async def test_an_autoscaler_on_another_target_does_not_matter(scene: Scene) -> None:
    scene.deploy("llm", 1)
    scene.deploy("web", 1, gpus=0)
    autoscaler(scene, "web")
    actuator = scene.actuator()
    await until(actuator, ready(1))
    await actuator.apply(up(2, "a"))
    assert scene.replicas() == 2


@pytest.mark.parametrize(
    ("manager", "named"),
    [("argocd-controller", "Argo CD"), ("kustomize-controller", "Flux"), ("tidegate/b", "another")],
)
async def test_j12_a_controller_that_applies_the_number_is_left_to_it(scene: Scene, manager: str, named: str) -> None:
    scene.deploy("llm", 1)
    applied = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "llm"}, "spec": {"replicas": 2}}
    path = f"{scene.path()}?fieldManager={manager.replace('/', '%2F')}&force=true"
    assert scene.cluster.call("PATCH", path, applied, APPLY)[0] == 200
    actuator = scene.actuator()
    seen = await until(actuator, ready(2))
    assert seen.wanted_by_others == 2
    with pytest.raises(ActuatorError, match=f"{named}.* sets the replicas of Deployment llm"):
        await actuator.apply(up(3, "a"))
    assert scene.replicas() == 2
    allowed = scene.actuator(settings_of("llm", override=(manager,)))
    await allowed.apply(up(3, "a"))
    assert scene.replicas() == 3, "an operator may say that it does not insist"


async def test_j13_a_number_that_a_person_sets_is_their_wish_until_we_write(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator()
    await until(actuator, ready(1))
    await actuator.apply(up(2, "a"))
    seen = await until(actuator, ready(2))
    assert seen.wanted_by_others is None, "this number is ours"
    scene.set_replicas(3)
    seen = await until(actuator, ready(3))
    assert seen.wanted_by_others == 3
    await actuator.apply(up(4, "b"))
    seen = await until(actuator, ready(4))
    assert seen.wanted_by_others is None


async def test_j13_kubectl_scale_counts_as_well(scene: Scene) -> None:
    scene.deploy("llm", 1)
    scene.set_replicas(2, sub="/scale")
    assert (await until(scene.actuator(), ready(2))).wanted_by_others == 2
    # The API server notes no time for what came through the scale subresource: nobody can say that it is old.
    assert (await until(scene.actuator(settings_of("llm", others_s=0)), ready(2))).wanted_by_others == 2


async def test_j13_a_wish_gets_old(scene: Scene) -> None:
    scene.deploy("llm", 2)
    assert (await until(scene.actuator(), ready(2))).wanted_by_others == 2
    await until(scene.actuator(settings_of("llm", others_s=1)), lambda seen: seen.wanted_by_others is None)


async def test_j13_what_was_set_between_the_look_and_the_act_is_not_overwritten(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator()
    await until(actuator, ready(1))
    workload = actuator._sides[0].workload
    read = workload.read_again

    async def interrupted(before: Any) -> Any:
        view = await read(before)
        if scene.replicas() == 1:
            scene.set_replicas(4)
        return view

    workload.read_again = interrupted  # type: ignore[method-assign]
    with pytest.raises(ActuatorError, match="was set from 1 to 4 by somebody else meanwhile"):
        await actuator.apply(up(2, "a"))
    assert scene.replicas() == 4


async def test_j01_what_else_changes_in_between_only_costs_another_look(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator()
    await until(actuator, ready(1))
    workload = actuator._sides[0].workload
    read, looks = workload.read_again, 0

    async def interrupted(before: Any) -> Any:
        nonlocal looks
        looks += 1
        view = await read(before)
        if looks <= 2:
            body = {"metadata": {"annotations": {"a": str(looks)}}}
            scene.cluster.call("PATCH", scene.path(), body, "application/merge-patch+json")
        return view

    workload.read_again = interrupted  # type: ignore[method-assign]
    await actuator.apply(up(2, "a"))
    assert (scene.replicas(), looks) == (2, 3)


async def test_j12_somebody_unknown_who_sets_it_again_and_again_is_taken_for_a_controller(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator()
    await until(actuator, ready(1))
    for total in (2, 3):
        await actuator.apply(up(total, *(f"s{index}" for index in range(total - 1))))
        assert scene.replicas() == total
        scene.set_replicas(1, manager="home-grown-scaler")
        await actuator.observe()
    await actuator.observe()
    with pytest.raises(ActuatorError, match="home-grown-scaler set the replicas of Deployment llm again each time"):
        await actuator.apply(up(4, "s7", "s8", "s9"))
    assert scene.replicas() == 1


async def test_any_resource_with_the_scale_subresource_is_scaled(scene: Scene) -> None:
    fleets.create(scene.cluster, scene.namespace, 1, selector="app=llm")
    scene.deploy("llm", 1)  # stands for whoever makes pods of fleets
    actuator = scene.actuator(settings_of("llm", resource=fleets.RESOURCE))
    seen = await until(actuator, ready(1))
    assert phases(seen)
    await actuator.apply(up(2, "a"))
    assert scene.replicas(resource="fleets", group=fleets.GROUP) == 2
    assert (await actuator.observe()).wanted_by_others is None
    path = f"{scene.path('llm', 'fleets', fleets.GROUP)}/scale?fieldManager=kubectl"
    scene.cluster.call("PATCH", path, {"spec": {"replicas": 5}}, "application/merge-patch+json")
    assert (await actuator.observe()).wanted_by_others == 5
