"""The API server fails, pods fail, budgets refuse: the actuator says why, asks little, and goes on when it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autoscaler.action import GiveUp, Stop
from autoscaler.actuator import ActuatorError
from autoscaler.fleet import Phase
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.fault_proxy import Answer, FaultProxy, Way
from tests.kubernetes.scaled import POOL, Scene, phases, ready, settings_of, until, up


@pytest.fixture
async def scene(cluster: Cluster, namespace: str) -> AsyncIterator[Scene]:
    made = Scene(cluster, namespace)
    yield made
    await made.close()


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(cluster) as made:
        yield made


async def look(actuator: Any, for_s: float) -> list[str]:
    """Observe much more often than a loop would; returns what went wrong."""
    errors = []
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        try:
            await actuator.observe()
        except ActuatorError as error:
            errors.append(str(error))
        await asyncio.sleep(0.02)
    return errors


@pytest.mark.parametrize("status", [500, 503, 504, 429])
async def test_j04_in_trouble_there_is_at_most_one_call_a_second(scene: Scene, proxy: FaultProxy, status: int) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator(access=scene.cluster.access(url=proxy.url))
    await until(actuator, ready(1))
    first = len(proxy.calls)
    proxy.answer = Answer(status)
    errors = await look(actuator, 4.0)
    # Two are sent together before the first error is known.
    assert len(proxy.calls) - first <= 4 + 3
    assert errors
    assert str(status) in errors[0]
    proxy.answer = None
    await until(actuator, ready(1), 60.0)


async def test_j03_retry_after_is_honoured(scene: Scene, proxy: FaultProxy) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator(access=scene.cluster.access(url=proxy.url))
    await until(actuator, ready(1))
    first = len(proxy.calls)
    proxy.answer = Answer(429, {"Retry-After": "5"})
    await look(actuator, 0.5)
    proxy.answer = None
    await until(actuator, ready(1), 30.0)
    told_at = proxy.calls[first].at
    after = [one.at - told_at for one in proxy.calls[first:]]
    # Those of one look are sent together, before the first answer is known.
    assert not [at for at in after if 0.5 < at < 4.9]
    assert max(after) >= 4.9


async def test_j05_a_token_that_was_replaced_is_read_again(scene: Scene) -> None:
    scene.deploy("llm", 1)
    access = scene.cluster.access(token="0" * 32)
    actuator = scene.actuator(access=access)
    with pytest.raises(ActuatorError, match="401"):
        await actuator.observe()
    access.token_file.write_text(scene.cluster.tokens["admin"])
    await until(actuator, ready(1))


async def test_j06_a_missing_right_is_named_and_another_pool_goes_on(scene: Scene, proxy: FaultProxy) -> None:
    scene.deploy("llm", 1)
    scene.deploy("other", 1)
    proxy.refused = "/deployments/llm/scale"
    access = scene.cluster.access(url=proxy.url)
    degraded, well = scene.actuator(access=access), scene.actuator(settings_of("other"), access=access)
    with pytest.raises(ActuatorError, match="the ServiceAccount may not") as caught:
        await degraded.observe()
    assert caught.value.retry_after_s == 60.0
    await until(well, ready(1))


async def test_j07_a_deployment_that_is_deleted_is_an_error_and_not_zero_replicas(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator()
    await until(actuator, ready(1))
    scene.cluster.call("DELETE", scene.path(), {"propagationPolicy": "Background"})
    with pytest.raises(ActuatorError, match=r"Deployment .*/llm does not exist"):
        await actuator.observe()
    with pytest.raises(ActuatorError, match="does not exist"):
        await actuator.apply(up(2, "a"))
    scene.deploy("llm", 1)
    await until(actuator, ready(1))


@pytest.mark.parametrize("way", [Way.CUT, Way.HANG])
async def test_j09_cut_off_it_says_so_in_time_and_afterwards_sees_all(
    scene: Scene, proxy: FaultProxy, way: Way
) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator(access=scene.cluster.access(url=proxy.url))
    await until(actuator, ready(1))
    proxy.fail(way)
    began = time.monotonic()
    with pytest.raises(ActuatorError):
        await actuator.observe()
    with pytest.raises(ActuatorError):
        await actuator.apply(up(2, "a"))
    assert time.monotonic() - began < 20.0
    proxy.fail(Way.PASS)
    scene.set_replicas(3)
    seen = await until(actuator, ready(3), 40.0)
    assert seen.wanted_by_others == 3


async def test_j10_who_does_not_lead_writes_nothing(scene: Scene) -> None:
    scene.deploy("llm", 2)
    leads = True
    actuator = scene.actuator(may_act=lambda: leads)
    seen = await until(actuator, ready(2))
    leads = False
    for action in (up(3, "a"), Stop(POOL, seen.replicas[0].fact.id, 1, "drained")):
        with pytest.raises(ActuatorError, match="does not lead"):
            await actuator.apply(action)
    assert scene.replicas() == 2
    assert len(scene.pods()) == 2


async def test_j10_a_leader_that_stops_leading_in_the_middle_writes_no_number(scene: Scene) -> None:
    scene.deploy("llm", 3)
    asked = 0

    def leads() -> bool:
        nonlocal asked
        asked += 1
        return asked != 2

    actuator = scene.actuator(may_act=lambda: True)
    seen = await until(actuator, ready(3))
    workload = actuator._sides[0].workload
    workload._may_act = leads
    with pytest.raises(ActuatorError, match="does not lead"):
        await actuator.apply(Stop(POOL, seen.replicas[0].fact.id, 2, "drained"))
    assert asked == 2, "once for the mark, once for the number"
    assert scene.replicas() == 3
    assert len(scene.pods()) == 3


def broken(reason: str, restarts: int = 0) -> dict[str, Any]:
    container = {
        "name": "runtime",
        "image": "runtime:1",
        "imageID": "",
        "ready": False,
        "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": "no such model"}},
        "lastState": {"terminated": {"exitCode": 3}} if restarts else {},
    }
    return {"status": {"containerStatuses": [container]}}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (broken("CrashLoopBackOff", 3), "runtime: ended 3 times, last with exit code 3"),
        (broken("ImagePullBackOff"), "ImagePullBackOff: no such model"),
        (broken("InvalidImageName"), "InvalidImageName"),
    ],
)
async def test_j17_a_start_that_fails_is_shown_and_only_it_is_cleared_away(
    scene: Scene, status: dict[str, Any], told: str
) -> None:
    scene.deploy("llm", 2, annotations={"test/ready-delay": "1h"})
    actuator = scene.actuator(settings_of("llm", pull_s=0.2))
    await scene.eventually(lambda: len(scene.pods()) == 2, "two pods")
    scene.release(*scene.pods())
    seen = await until(actuator, ready(2))
    good = {one.fact.id for one in seen.replicas}
    await actuator.apply(up(3, "bad"))
    await until(actuator, lambda seen: phases(seen).count(Phase.STARTING) == 1)
    (bad,) = scene.pods().keys() - good
    scene.patch_pod(bad, status, sub="/status")
    seen = await until(actuator, lambda seen: phases(seen).count(Phase.FAILED) == 1)
    (failed,) = (one for one in seen.replicas if one.fact.phase is Phase.FAILED)
    assert told in failed.detail
    assert failed.fact.start_id == "bad"
    await actuator.apply(Stop(POOL, bad, 2, "it failed"))
    await scene.eventually(lambda: scene.pods().keys() == good, "only the failed pod is gone")
    assert scene.replicas() == 2


async def test_a_crash_that_may_pass_is_still_a_start(scene: Scene) -> None:
    scene.deploy("llm", 1, annotations={"test/ready-delay": "1h"})
    actuator = scene.actuator()
    await scene.eventually(lambda: len(scene.pods()) == 1, "a pod")
    (uid,) = scene.pods()
    scene.patch_pod(uid, broken("CrashLoopBackOff", 1), sub="/status")
    seen = await actuator.observe()
    assert phases(seen) == [Phase.STARTING]
    assert "CrashLoopBackOff" in seen.replicas[0].detail


async def test_a_pod_that_ended_is_discarded_and_the_number_stays(scene: Scene) -> None:
    scene.deploy("llm", 2)
    actuator = scene.actuator()
    await until(actuator, ready(2))
    ended = next(iter(scene.pods()))
    gone = {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}
    scene.patch_pod(ended, {"status": gone}, sub="/status")
    seen = await until(actuator, lambda seen: phases(seen) == [Phase.FAILED, Phase.READY, Phase.READY])
    (failed,) = (one for one in seen.replicas if one.fact.phase is Phase.FAILED)
    assert failed.detail == "Evicted: the node was low on memory"
    await actuator.apply(Stop(POOL, ended, 2, "it failed"))
    await scene.eventually(lambda: ended not in scene.pods(), "the remains are gone")
    assert scene.replicas() == 2


def budget(scene: Scene, **spec: Any) -> None:
    path = f"/apis/policy/v1/namespaces/{scene.namespace}/poddisruptionbudgets"
    body = {"metadata": {"name": "llm"}, "spec": {"selector": {"matchLabels": {"app": "llm"}}, **spec}}
    scene.cluster.create(path, body)
    scene.cluster.eventually(
        lambda: "disruptionsAllowed" in scene.cluster.call("GET", f"{path}/llm")[1].get("status", {}), "the budget", 10
    )


async def test_j19_what_a_budget_keeps_is_no_victim(scene: Scene) -> None:
    scene.deploy("llm", 2)
    actuator = scene.actuator()
    seen = await until(actuator, ready(2))
    assert not any(one.fact.protected for one in seen.replicas)
    budget(scene, minAvailable=2)
    await until(actuator, lambda seen: all(one.fact.protected for one in seen.replicas))


async def test_j19_an_eviction_that_a_budget_refuses_waits_and_is_never_forced(scene: Scene) -> None:
    scene.deploy("llm", 2, annotations={"test/ready-delay": "1h"})
    actuator = scene.actuator()
    await scene.eventually(lambda: len(scene.pods()) == 2, "two pods")
    scene.release(*scene.pods())
    seen = await until(actuator, ready(2))
    victim = seen.replicas[0].fact.id
    # One that starts: the number would take it instead, so that the victim has to be evicted.
    await actuator.apply(up(3, "slow"))
    await until(actuator, lambda seen: phases(seen).count(Phase.STARTING) == 1)
    budget(scene, minAvailable=2)
    for _ in range(2):
        with pytest.raises(ActuatorError, match="a disruption budget keeps pod"):
            await actuator.apply(Stop(POOL, victim, 2, "drained"))
    assert len(scene.pods()) == 3
    path = f"/apis/policy/v1/namespaces/{scene.namespace}/poddisruptionbudgets/llm"
    scene.cluster.call("DELETE", path)
    await actuator.apply(Stop(POOL, victim, 2, "drained"))
    await scene.eventually(lambda: victim not in scene.pods() and len(scene.pods()) == 2, "the victim is gone")


async def test_j15_a_quota_that_is_used_up_makes_the_kind_full(scene: Scene) -> None:
    scene.deploy("llm", 1)
    actuator = scene.actuator()
    await until(actuator, ready(1))
    quota = {"metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}}
    quotas = f"/api/v1/namespaces/{scene.namespace}/resourcequotas"
    scene.cluster.create(quotas, quota)
    await scene.eventually(
        lambda: scene.cluster.call("GET", f"{quotas}/one")[1].get("status", {}).get("used") == {"pods": "1"},
        "the quota",
    )
    await actuator.apply(up(2, "a"))
    seen = await until(actuator, lambda seen: seen.full == {"default"})
    assert phases(seen) == [Phase.READY]
    await actuator.apply(GiveUp(POOL, "a", None, 1, "sold out"))
    assert scene.replicas() == 1
    await until(actuator, lambda seen: not seen.full)


async def test_an_operators_mark_protects_a_pod(scene: Scene) -> None:
    scene.deploy("llm", 1, annotations={"tidegate.dev/protected": "true"})
    seen = await until(scene.actuator(), ready(1))
    assert seen.replicas[0].fact.protected


async def test_in_the_middle_of_a_rollout_nothing_is_ended(scene: Scene) -> None:
    scene.deploy("llm", 2)
    actuator = scene.actuator()
    seen = await until(actuator, ready(2))
    change = {"spec": {"template": {"metadata": {"annotations": {"test/ready-delay": "1h"}}}}}
    scene.cluster.call("PATCH", scene.path(), change, "application/merge-patch+json")
    await scene.eventually(lambda: len(scene.pods()) == 3, "the first pod of the new template")
    old = next(one.fact.id for one in seen.replicas if one.fact.id in scene.pods())
    with pytest.raises(ActuatorError, match="in the middle of a rollout"):
        await actuator.apply(Stop(POOL, old, 1, "drained"))
    assert scene.replicas() == 2
