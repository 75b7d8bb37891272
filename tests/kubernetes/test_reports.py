"""What people see with kubectl: events on the workload, and conditions in a ConfigMap."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autoscaler.action import Stop
from autoscaler.actuator import ActuatorError
from autoscaler.actuators.kubernetes.report import SPACING_S, Condition, Reporter
from lb.clock import Clock
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.fault_proxy import Answer, FaultProxy
from tests.kubernetes.scaled import POOL, Scene, ready, until, up


@pytest.fixture
async def scene(cluster: Cluster, namespace: str) -> AsyncIterator[Scene]:
    made = Scene(cluster, namespace)
    yield made
    await made.close()


def events(scene: Scene) -> dict[str, dict[str, Any]]:
    listed = scene.cluster.call("GET", f"/api/v1/namespaces/{scene.namespace}/events")[1]["items"]
    return {one["reason"]: one for one in listed if one["source"].get("component") == "tidegate"}


def conditions(scene: Scene, pool: str = POOL) -> dict[str, dict[str, str]]:
    path = f"/api/v1/namespaces/{scene.namespace}/configmaps/tidegate-status"
    status, found = scene.cluster.call("GET", path)
    if status != 200:
        return {}
    return {one["type"]: one for one in json.loads(found["data"][pool])["conditions"]}


async def test_what_was_done_is_an_event_on_the_deployment(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator(reports=True)
    await until(actuator, ready(1))
    await actuator.apply(up(2, "a"))
    seen = await until(actuator, ready(2))
    victim = seen.replicas[0].fact.id
    await actuator.apply(Stop(POOL, victim, 1, "demand falls"))
    told = events(scene)
    assert told.keys() == {"ScaledUp", "ScaledDown"}
    deployment = scene.cluster.call("GET", scene.path())[1]
    for one in told.values():
        reference = one["involvedObject"]
        assert (reference["kind"], reference["name"], reference["uid"]) == (
            "Deployment", "llm", deployment["metadata"]["uid"],
        )  # fmt: skip
    assert "demand falls" in told["ScaledDown"]["message"]


async def test_the_same_again_is_counted_and_not_written_each_time(scene: Scene) -> None:
    scene.deploy("llm", 1)
    now = 0.0
    api = scene.api()
    reporter = Reporter(api, scene.namespace, "tidegate", Clock(lambda: now, lambda: 1_767_225_600.0 + now))
    target = scene.cluster.call("GET", scene.path())[1]
    for _ in range(5):
        await reporter.event(target, "Warning", "NotOwned", "an autoscaler scales it")
        now += 1.0
    assert events(scene)["NotOwned"]["count"] == 1
    now += SPACING_S
    await reporter.event(target, "Warning", "NotOwned", "an autoscaler scales it still")
    told = events(scene)["NotOwned"]
    assert (told["count"], told["message"]) == (6, "an autoscaler scales it still")
    listed = scene.cluster.call("GET", f"/api/v1/namespaces/{scene.namespace}/events")[1]["items"]
    assert len([one for one in listed if one["reason"] == "NotOwned"]) == 1


async def test_conditions_say_what_holds_and_since_when(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator(reports=True)
    await until(actuator, ready(1))
    first = conditions(scene)
    assert {kind: one["status"] for kind, one in first.items()} == {
        "Observed": "True", "Owned": "True", "CapacityAvailable": "True",
    }  # fmt: skip
    scaler = {
        "metadata": {"name": "hpa"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llm"}, "maxReplicas": 5},
    }
    base = f"/apis/autoscaling/v2/namespaces/{scene.namespace}/horizontalpodautoscalers"
    scene.cluster.create(base, scaler)
    await until(actuator, lambda _: conditions(scene)["Owned"]["status"] == "False")
    owned = conditions(scene)["Owned"]
    assert "HorizontalPodAutoscaler hpa scales Deployment llm" in owned["message"]
    assert "delete it, or leave the pool in mode advise" in owned["message"], "and what to do about it"
    assert conditions(scene)["Observed"] == first["Observed"], "what did not change keeps its time"
    assert events(scene)["NotOwned"]["type"] == "Warning"
    scene.cluster.call("DELETE", f"{base}/hpa")
    await until(actuator, lambda _: conditions(scene)["Owned"]["status"] == "True")


async def test_two_pools_keep_their_own_part_of_the_config_map(scene: Scene) -> None:
    api, clock = scene.api(), Clock(lambda: 0.0, lambda: 1_767_225_600.0)
    for pool in ("a", "b", "a"):
        reporter = Reporter(api, scene.namespace, "tidegate", clock)
        await reporter.conditions(pool, [Condition("Owned", True, "NoRival", pool)])
    assert (conditions(scene, "a")["Owned"]["message"], conditions(scene, "b")["Owned"]["message"]) == ("a", "b")


async def test_a_pool_that_cannot_be_read_says_so(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator(reports=True)
    await until(actuator, ready(1))
    scene.cluster.call("DELETE", scene.path(), {"propagationPolicy": "Background"})
    with pytest.raises(ActuatorError):
        await actuator.observe()
    observed = conditions(scene)["Observed"]
    assert observed["status"] == "False"
    assert "does not exist" in observed["message"]


async def test_reports_that_cannot_be_written_disturb_nothing(scene: Scene) -> None:
    scene.deploy("llm", 1)
    async with FaultProxy(scene.cluster) as proxy:
        actuator = scene.actuator(reports=False)
        broken = scene.api(scene.cluster.access(url=proxy.url))
        proxy.answer = Answer(403)
        actuator._reporter = Reporter(broken, scene.namespace, "tidegate", Clock(lambda: 0.0, lambda: 0.0))
        await until(actuator, ready(1))
        await actuator.apply(up(2, "a"))
        assert scene.replicas() == 2
        assert proxy.calls, "it was tried"
