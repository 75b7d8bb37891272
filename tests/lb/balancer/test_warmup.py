"""Who ramps up: a replica that joins or returns beside one that is warm."""

from __future__ import annotations

import pytest

from lb.health.warmup import FLOOR_RATIO
from lb.runtime import ProbeResult, RuntimeLoad
from tests.lb.balancer.driver import FAILED, LOADING, READY, Box, endpoint


def warm_ratio(box: Box, name: str) -> float:
    return next(one.warm_ratio for one in box.balancer.view(box.now).replicas if one.id == name)


def test_the_first_replicas_share_the_load_without_a_ramp(box: Box) -> None:
    box.join("a", "b", "c")
    assert all(warm_ratio(box, name) == 1.0 for name in "abc")


def test_a_later_replica_ramps_up_and_gets_its_share(box: Box) -> None:
    box.join("a", "b")
    box.now += 100.0
    old = [box.routed() for _ in range(20)]
    box.endpoints(endpoint("a"), endpoint("b"), endpoint("c"))
    box.probe("c")
    assert warm_ratio(box, "c") < 1.0
    for _ in range(30):
        box.routed()
    newcomer = box.balancer.replicas["c"]
    assert 5 <= newcomer.in_flight <= 20
    box.poll(11.0)
    assert newcomer.ramp is None
    assert len(old) == 20


@pytest.mark.parametrize("served_s", [3.0, 100.0])
def test_a_replica_that_returns_from_loading_ramps(box: Box, served_s: float) -> None:
    box.join("a", "b")
    box.poll(served_s)
    box.probe("a", LOADING)
    box.poll(5.0)
    box.probe("a", READY, 2)
    assert box.state("a") == "ready"
    assert warm_ratio(box, "a") == FLOOR_RATIO
    assert warm_ratio(box, "b") == 1.0
    box.poll(5.0)
    assert warm_ratio(box, "a") == pytest.approx(0.5)


def test_a_replica_that_was_listed_with_others_and_loaded_longer_ramps(box: Box) -> None:
    """They came up a little later than it was listed, and have answered since."""
    box.endpoints(endpoint("a"), endpoint("b"))
    box.probe("a", LOADING)
    box.now += 0.1
    box.probe("b")
    for _ in range(3):
        ticket = box.routed()
        box.now += 0.2
        box.balancer.first_byte(ticket, box.now)
        box.finish(ticket)
    box.poll(1.0)
    box.probe("a")
    assert warm_ratio(box, "a") < 1.0


def test_two_that_return_together_are_equally_cold(box: Box) -> None:
    box.join("a", "b")
    box.poll(100.0)
    for name in "ab":
        box.probe(name, LOADING)
    box.poll(5.0)
    for name in "ab":
        box.probe(name, READY, 2)
    assert (warm_ratio(box, "a"), warm_ratio(box, "b")) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("away", "tokens_after", "ratio"),
    [
        (FAILED, 900.0, 1.0),  # its counters went on: it was out of reach
        (FAILED, 40.0, FLOOR_RATIO),  # they began again: a new process
        (LOADING, 900.0, FLOOR_RATIO),  # the same process with a model that is new to it
    ],
)
def test_a_replica_that_was_only_out_of_reach_is_as_warm_as_before(
    box: Box, away: ProbeResult, tokens_after: float, ratio: float
) -> None:
    box.join("a", "b")
    for _ in range(8):
        ticket = box.routed()
        box.now += 0.2
        box.balancer.first_byte(ticket, box.now)
        box.finish(ticket)
    box.balancer.observe_load("a", RuntimeLoad(running=0, output_tokens_total=800.0), box.now)
    box.poll(100.0)
    box.probe("a", away, 3)
    box.poll(5.0)
    box.probe("a", READY, 2)
    assert warm_ratio(box, "a") == FLOOR_RATIO
    box.balancer.observe_load("a", RuntimeLoad(running=0, output_tokens_total=tokens_after), box.now)
    box.poll()
    assert warm_ratio(box, "a") == ratio
    assert (box.balancer.replicas["a"].ramp is None) == (ratio == 1.0)
