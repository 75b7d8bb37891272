"""A replica that has shown nothing yet is believed to be as fast as its peers, so that it gets its share at once."""

from __future__ import annotations

import pytest

from lb.cost.replica_model import TAUGHT
from lb.replica import Replica
from lb.runtime import ProbeResult, ProbeStatus
from tests.lb.balancer.driver import LOADING, READY, Box, endpoint

STEP_S = 0.0012


def teach(box: Box, name: str, step_s: float = STEP_S) -> Replica:
    """It has answered often, a step in `step_s`."""
    replica = box.balancer.replicas[name]
    for _ in range(60):
        replica.speed.learn_first_token(500, 0, 0, step_s * 2 + 500 * step_s * 0.01)
        replica.speed.learn_steps(1, 500, step_s, 50)
    return replica


def step_s(box: Box, name: str) -> float:
    return box.balancer.replicas[name].speed.step_s(1, 500)


def test_a_burst_is_shared_with_a_replica_that_has_just_joined(box: Box) -> None:
    box.join("old")
    teach(box, "old")
    box.now += 100.0
    box.endpoints(endpoint("old"), endpoint("new"))
    box.probe("new")
    assert step_s(box, "new") == pytest.approx(STEP_S, rel=0.1)
    assert box.balancer.replicas["new"].pace.step_s == pytest.approx(STEP_S, rel=0.2)
    for _ in range(12):
        box.routed()
    assert box.balancer.replicas["new"].in_flight >= 3


def test_weights_say_how_much_faster_it_is(box: Box) -> None:
    box.join("old")
    teach(box, "old")
    box.endpoints(endpoint("old"), endpoint("new", weight=3.0))
    box.probe("new")
    assert step_s(box, "new") == pytest.approx(STEP_S / 3, rel=0.1)


def test_only_peers_of_the_same_models_and_runtime_count(box: Box) -> None:
    box.endpoints(
        endpoint("a", runtime="vllm"), endpoint("b", runtime="sglang"), endpoint("c", models=("x",), runtime="vllm")
    )
    for name, factor in (("a", 1), ("b", 4), ("c", 16)):
        box.probe(name)
        teach(box, name, STEP_S * factor)
    box.endpoints(
        *(replica.endpoint for replica in box.balancer.replicas.values()),
        endpoint("d", runtime="sglang"),
        endpoint("e", models=("y",), runtime="vllm"),
        endpoint("f"),
    )
    for name in "def":
        box.probe(name)
    assert step_s(box, "d") == pytest.approx(STEP_S * 4, rel=0.1)
    assert step_s(box, "e") > 0.01, "nobody serves that"
    assert step_s(box, "f") == pytest.approx(STEP_S * 2.5, rel=0.1), "its runtime is not known: all of the same models"


def test_what_it_runs_and_serves_may_be_known_later(box: Box) -> None:
    box.endpoints(endpoint("a", runtime="vllm"), endpoint("b", runtime="sglang", models=("x",)))
    for name, factor in (("a", 1), ("b", 4)):
        box.probe(name)
        teach(box, name, STEP_S * factor)
    listed = [replica.endpoint for replica in box.balancer.replicas.values()]
    box.endpoints(*listed, endpoint("new", models=()))
    box.probe("new")
    assert step_s(box, "new") > 0.01
    box.probe("new", ProbeResult(ProbeStatus.READY, models=("x",), runtime="sglang"))
    assert step_s(box, "new") == pytest.approx(STEP_S * 4, rel=0.1)


def test_peers_that_learn_later_teach_those_that_wait(box: Box) -> None:
    box.join("a", "b")
    teach(box, "a")
    assert step_s(box, "b") > 0.01
    box.poll(2.0)
    assert step_s(box, "b") == pytest.approx(STEP_S, rel=0.1)


def test_peers_that_are_out_and_own_lessons(box: Box) -> None:
    box.join("a", "b")
    teach(box, "a")
    box.probe("a", LOADING)
    box.poll(2.0)
    assert step_s(box, "b") > 0.01, "nobody is ready that could be compared with it"
    teach(box, "b", 10 * STEP_S)
    box.probe("a", READY, 2)
    box.poll(2.0)
    assert step_s(box, "b") == pytest.approx(10 * STEP_S, rel=0.1)
    assert step_s(box, "a") == pytest.approx(STEP_S, rel=0.1)
    assert box.balancer.replicas["b"].speed.coefficients.steps > TAUGHT
