"""What objects of the API mean: pods as replicas, owners of a number, marks, budgets. All as values."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.actuators.kubernetes import budgets, full, marks, objects, ownership, pods, removal
from autoscaler.fleet import Phase, Stage
from tests.autoscaler.actuators.kubernetes_objects import READING, WALL, at, condition, node, pod, running


def test_the_stages_of_a_start_are_instants_of_our_clock() -> None:
    seen = pods.observed(
        pod(condition("PodScheduled", "True", 40), condition("Ready", "True", 95), containerStatuses=[running(60)]),
        node(30), READING,
    )  # fmt: skip
    assert seen.fact.phase is Phase.READY
    assert seen.fact.stages == {
        Stage.REQUESTED: 910.0, Stage.NODE: 930.0, Stage.GPU: 940.0, Stage.IMAGE: 960.0, Stage.WARM: 995.0,
    }  # fmt: skip
    assert seen.fact.since_s == 995.0
    assert seen.endpoint is not None
    assert (seen.endpoint.id, seen.endpoint.url) == ("u1", "http://10.0.0.7:8000")


def test_a_node_that_was_there_before_costs_no_time() -> None:
    old = pods.observed(pod(condition("PodScheduled", "True", 12)), node(0), READING)
    assert old.fact.stages[Stage.NODE] == 910.0
    assert old.fact.stages[Stage.GPU] == 912.0


def test_stamps_of_clocks_that_go_ahead_are_not_in_the_future_and_stay_in_order() -> None:
    ahead = pods.observed(pod(condition("PodScheduled", "True", 500), condition("Ready", "True", 20)), None, READING)
    assert ahead.fact.stages[Stage.GPU] == 1000.0
    assert ahead.fact.stages[Stage.WARM] == 1000.0


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ([], None),
        ([{"containerPort": 9000}], 9000),
        ([{"containerPort": 9000}, {"containerPort": 9001}], None),
        ([{"containerPort": 9000, "name": "metrics"}, {"containerPort": 9001, "name": "http"}], 9001),
        ([{"containerPort": "9000"}], None),
    ],
)
def test_a_port_that_is_not_said_is_the_one_named_http_or_the_only_one(ports: list[Any], port: int | None) -> None:
    one = pod()
    one["spec"]["containers"][0]["ports"] = ports
    reading = pods.Reading("d", 1000.0, READING.offset_s, "nvidia.com/gpu", 3, 120.0)
    found = pods.observed(one, None, reading).endpoint
    assert (None if found is None else found.port) == port


def test_weights_are_known_where_a_condition_tells_of_them() -> None:
    reading = pods.Reading("d", 1000.0, READING.offset_s, "nvidia.com/gpu", 3, 120.0, None, "tidegate.dev/weights")
    one = pod(condition("PodScheduled", "True", 12), condition("tidegate.dev/weights", "True", 70))
    assert pods.observed(one, None, reading).fact.stages[Stage.WEIGHTS] == 970.0
    assert pods.observed(one, None, reading).endpoint is None


@pytest.mark.parametrize(
    ("change", "phase"),
    [
        ({"status": {"phase": "Pending"}}, Phase.STARTING),
        ({"status": {"phase": "Failed", "reason": "Evicted"}}, Phase.FAILED),
        ({"status": {"phase": "Succeeded"}}, Phase.FAILED),
        ({}, Phase.STARTING),
        ({"metadata": {"deletionTimestamp": at(90)}}, Phase.STOPPING),
        ({"spec": None, "status": None, "metadata": {"uid": "u1"}}, Phase.STARTING),
        ({"status": {"conditions": "nonsense", "containerStatuses": [3, {"state": []}]}}, Phase.STARTING),
    ],
)
def test_a_pod_in_any_shape_has_a_phase(change: dict[str, Any], phase: Phase) -> None:
    assert pods.observed({**pod(), **change}, None, READING).fact.phase is phase


def waiting(reason: str, restarts: int = 0) -> dict[str, Any]:
    return {"name": "runtime", "restartCount": restarts, "state": {"waiting": {"reason": reason, "message": "why"}}}


@pytest.mark.parametrize(
    ("status", "placed", "phase"),
    [
        (waiting("CrashLoopBackOff", 2), 20, Phase.STARTING),
        (waiting("CrashLoopBackOff", 3), 20, Phase.FAILED),
        (waiting("ImagePullBackOff"), 20, Phase.STARTING),
        (waiting("ErrImageNeverPull"), 20, Phase.FAILED),
        (waiting("ContainerCreating"), 20, Phase.STARTING),
    ],
)
def test_j17_what_may_pass_is_a_start_and_what_cannot_is_a_failure(
    status: dict[str, Any], placed: int, phase: Phase
) -> None:
    one = pod(condition("PodScheduled", "True", placed), containerStatuses=[status])
    assert pods.observed(one, None, READING).fact.phase is phase


def test_j17_an_image_that_cannot_be_pulled_for_long_is_a_failure() -> None:
    one = pod(condition("PodScheduled", "True", 20), containerStatuses=[waiting("ImagePullBackOff")])
    late = pods.Reading("d", 1061.0, READING.offset_s, "nvidia.com/gpu", 3, 120.0)
    assert pods.observed(one, None, late).fact.phase is Phase.FAILED


def test_a_ready_node_without_gpus_is_named() -> None:
    one = pod(condition("PodScheduled", "True", 20))
    assert "offers no nvidia.com/gpu" in pods.observed(one, node(5, "0"), READING).detail
    assert pods.usable_gpus(node(5, "8"), "nvidia.com/gpu") == 8.0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8", 8.0),
        ("500m", 0.5),
        ("1k", 1000.0),
        ("80Gi", 80.0 * 2**30),
        ("x", 0.0),
        ("1e3x", 0.0),
        (None, 0.0),
        (2, 2.0),
    ],
)
def test_quantities(text: object, number: float) -> None:
    assert objects.quantity(text) == number


# ---------------------------------------------------------------------- owners


def target(*managers: tuple[str, int, str]) -> dict[str, Any]:
    fields = [
        {"manager": name, "time": at(second), "subresource": sub, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        for name, second, sub in managers
    ]
    other = {"manager": "helm", "time": at(59), "fieldsV1": {"f:spec": {"f:template": {}}}}
    return {"kind": "Deployment", "metadata": {"name": "llm", "managedFields": [*fields, other]}}


def test_the_number_is_ours_if_we_are_among_those_who_hold_it() -> None:
    assert ownership.judge(target(("tidegate", 5, "scale")), (), "tidegate").ours
    assert not ownership.judge(target(("helm", 5, "")), (), "tidegate").ours
    assert not ownership.judge(target(), (), "tidegate").ours


@pytest.mark.parametrize(
    ("manager", "rival"),
    [
        ("keda-operator", True), ("argocd-application-controller", True), ("fluxcd", True), ("tidegate-b", True),
        ("kubectl", False), ("helm", False), ("kubectl-client-side-apply", False), ("terraform", False),
    ],
)  # fmt: skip
def test_who_insists_and_who_sets_it_once(manager: str, rival: bool) -> None:
    found = ownership.judge(target((manager, 5, "")), (), "tidegate")
    assert bool(found.rival) is rival
    assert bool(found.advice) is rival


def test_a_wish_is_the_present_number_while_it_is_new() -> None:
    found = ownership.judge(target(("kubectl", 60, "")), (), "tidegate")
    assert found.wanted_by_others(7, WALL + 100.0, 60.0) == 7
    assert found.wanted_by_others(7, WALL + 200.0, 60.0) is None
    assert found.wanted_by_others(7, WALL - 3600.0, 60.0) == 7, "a clock that is behind makes nothing old"


def test_twice_within_an_hour_is_a_fight_and_once_is_a_correction() -> None:
    fights = ownership.Fights()
    theirs = ownership.judge(target(("scaler", 60, "")), (), "tidegate")
    for now in (10.0, 20.0, 30.0):
        fights.saw(theirs, now)
    assert fights.with_whom(40.0) == "", "they only kept what was theirs"
    fights.wrote()
    fights.saw(theirs, 50.0)
    assert fights.with_whom(60.0) == ""
    fights.wrote()
    fights.saw(theirs, 70.0)
    assert fights.with_whom(80.0) == "scaler"
    assert fights.with_whom(50.0 + 3601.0) == ""


# ---------------------------------------------------------------------- victims


def aged(
    uid: str, *, placed: bool = True, phase: str = "Running", is_ready: bool = True, cost: str = ""
) -> dict[str, Any]:
    return {
        "metadata": {"name": uid, "uid": uid, "annotations": {removal.COST: cost} if cost else {}},
        "spec": {"nodeName": "n"} if placed else {},
        "status": {"phase": phase, "conditions": [condition("Ready", "True" if is_ready else "False", 0)]},
    }


@pytest.mark.parametrize(
    ("other", "sure"),
    [
        (aged("b"), True),
        (aged("b", is_ready=False), False),
        (aged("b", phase="Pending", is_ready=False), False),
        (aged("b", placed=False, phase="Pending", is_ready=False), False),
        (aged("b", cost="-5"), True),
        (aged("b", cost=str(removal.LOWEST_COST)), False),
        (aged("b", cost="nonsense"), True),
    ],
)
def test_the_cost_decides_only_among_pods_that_are_equally_ready(other: dict[str, Any], sure: bool) -> None:
    assert removal.cost_decides([aged("a"), other], {"a"}) is sure


def test_the_number_is_what_stays_and_what_is_still_to_come() -> None:
    there = [aged("a"), aged("b"), aged("c")]
    assert removal.wanted(there, {"b"}, 2) == 4
    assert removal.wanted(there, {"b", "gone"}, -3) == 2


def test_marks_of_others_are_not_touched_but_for_the_cost_of_a_victim() -> None:
    theirs = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true", removal.COST: "7"}
    one = pod()
    one["metadata"]["annotations"] = theirs
    starting = marks.desired(one, start_id="s", draining=None, ending=False)
    assert marks.change(one, starting, "tidegate") == {pods.START_ID: "s", "karpenter.sh/do-not-disrupt": "true"}
    ending = marks.desired(one, start_id=None, draining="r", ending=True)
    assert marks.change(one, ending, "tidegate") == {marks.DRAINING: "r", removal.COST: str(removal.LOWEST_COST)}


# ---------------------------------------------------------------------- budgets, sold out


@pytest.mark.parametrize(
    ("selector", "picked"),
    [
        ({}, True),
        ({"matchLabels": {"app": "llm"}}, True),
        ({"matchLabels": {"app": "web"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["llm", "web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["llm"]}]}, False),
        ({"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors(selector: dict[str, Any], picked: bool) -> None:
    assert budgets.selects(selector, {"app": "llm"}) is picked


def test_a_budget_that_its_controller_has_not_looked_at_yet_allows_nothing() -> None:
    budget = {"metadata": {"generation": 2}, "spec": {"selector": {}}, "status": {"disruptionsAllowed": 5}}
    assert budgets.keeps([budget], pod())
    budget["status"]["observedGeneration"] = 2
    assert not budgets.keeps([budget], pod())


def event(reason: str, second: int, component: str = "", uid: str = "u1") -> dict[str, Any]:
    source = {"component": component}
    return {"reason": reason, "lastTimestamp": at(second), "involvedObject": {"uid": uid}, "source": source}


@pytest.mark.parametrize(
    ("events", "refused"),
    [
        ([event("NotTriggerScaleUp", 10)], {"u1"}),
        ([event("NotTriggerScaleUp", 10), event("TriggeredScaleUp", 20)], set()),
        ([event("TriggeredScaleUp", 10), event("NotTriggerScaleUp", 20)], {"u1"}),
        ([event("FailedScheduling", 10, "default-scheduler")], set()),
        ([event("FailedScheduling", 10, "karpenter")], {"u1"}),
        ([event("FailedScheduling", 10, "karpenter"), event("Nominated", 11, "karpenter")], set()),
        ([{"reason": "NotTriggerScaleUp"}], set()),
    ],
)
def test_the_last_word_of_a_node_autoscaler_counts(events: list[dict[str, Any]], refused: set[str]) -> None:
    assert full.refusals(events, WALL + 100.0) == refused
    assert full.refusals(events, WALL + 1000.0) == set()


def test_a_pod_that_waits_for_long_makes_its_kind_full() -> None:
    one = pod(condition("PodScheduled", "False", 10, "Unschedulable"))
    assert not full.is_full([one], set(), WALL + 100.0, 120.0)
    assert full.is_full([one], set(), WALL + 131.0, 120.0)
    assert full.is_full([one], {"u1"}, WALL + 20.0, 120.0)
    assert not full.is_full([pod(condition("PodScheduled", "True", 10))], {"u1"}, WALL + 900.0, 120.0)
