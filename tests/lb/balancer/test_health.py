"""Who is in and who is out, seen from outside."""

from __future__ import annotations

import pytest

from lb.effects import Abort, Outcome, Queued, Rejected, ReplicaChanged, Routed
from lb.errors import Reason
from lb.replica import GpuReading, GpuState
from lb.request import Usage
from tests.lb.balancer.driver import FAILED, LOADING, READY, Box, endpoint, on, settings


def break_replica(box: Box, name: str, outcome: Outcome = Outcome.RESET, count: int = 5) -> None:
    for ticket in [on(box, name) for _ in range(count)]:
        box.finish(ticket, outcome)


def test_nothing_goes_to_a_replica_before_it_is_ready(box: Box) -> None:
    box.endpoints(endpoint("a"))
    waiting = box.queued()
    box.probe("a", LOADING)
    assert box.state("a") == "joining"
    box.probe("a")
    assert Routed(waiting) in box.effects


def test_loading_is_neither_failed_nor_ready(box: Box) -> None:
    box.join("a", "b")
    box.probe("a", LOADING)
    assert box.state("a") == "joining"
    assert box.where(10) == {"b": 10}
    box.probe("a", READY)
    assert box.state("a") == "joining", "it has been ready before, so one good probe may be a flicker"
    box.probe("a", READY)
    assert box.state("a") == "ready"


def test_three_failed_probes_take_it_out_and_two_good_ones_bring_it_back(box: Box) -> None:
    box.join("a", "b")
    box.probe("a", FAILED, 2)
    assert box.state("a") == "ready"
    box.probe("a", FAILED)
    assert box.where(10) == {"b": 10}
    box.probe("a", READY, 2)
    assert box.state("a") == "ready"


@pytest.mark.parametrize(
    "outcome", [Outcome.RESET, Outcome.SERVER_ERROR, Outcome.TRUNCATED, Outcome.FIRST_BYTE_TIMEOUT]
)
def test_five_faults_in_a_row_eject(box: Box, outcome: Outcome) -> None:
    box.join("a", "b")
    break_replica(box, "a", outcome, 4)
    assert box.state("a") == "ready"
    break_replica(box, "a", outcome, 1)
    assert box.state("a") == "ejected"
    assert box.where(10) == {"b": 10}


@pytest.mark.parametrize(
    "outcome", [Outcome.CLIENT_ERROR, Outcome.CLIENT_CLOSED, Outcome.WRITE_STALLED, Outcome.ABORTED]
)
def test_what_clients_do_never_ejects(box: Box, outcome: Outcome) -> None:
    box.join("a", "b")
    for _ in range(30):
        box.finish(on(box, "a"), outcome, status=400)
    assert box.state("a") == "ready"


def test_errors_between_successes_do_not_eject(box: Box) -> None:
    box.join("a", "b")
    for _ in range(10):
        break_replica(box, "a", Outcome.SERVER_ERROR, 4)
        box.finish(on(box, "a"))
    assert box.state("a") == "ready"


def test_at_most_half_of_the_pool_is_ejected(box: Box) -> None:
    box.join("a", "b", "c", "d")
    for name in "abc":
        break_replica(box, name)
    assert [box.state(name) for name in "abcd"] == ["ejected", "ejected", "ready", "ready"]


def test_the_only_replica_is_never_ejected(box: Box) -> None:
    box.join("a")
    break_replica(box, "a", count=20)
    assert box.state("a") == "ready"


def test_good_probes_do_not_shorten_an_ejection(box: Box) -> None:
    box.join("a", "b")
    break_replica(box, "a")
    box.now += 9.0
    box.probe("a", READY, 5)
    box.poll()
    assert box.state("a") == "ejected"
    assert box.balancer.next_deadline() == pytest.approx(1010.0)
    box.poll(1.1)
    assert box.state("a") == "trial"


def test_half_open_lets_one_through_and_its_success_brings_it_back(box: Box) -> None:
    box.join("a", "b")
    break_replica(box, "a")
    box.poll(10.0)
    tickets = [box.routed() for _ in range(10)]
    (trial,) = [ticket for ticket in tickets if ticket.replica is not None and ticket.replica.id == "a"]
    box.finish(trial)
    assert box.state("a") == "ready"
    view = next(one for one in box.balancer.view(box.now).replicas if one.id == "a")
    assert view.warm_ratio < 1.0


def test_a_failed_trial_doubles_the_ejection(box: Box) -> None:
    box.join("a", "b")
    break_replica(box, "a")
    box.poll(10.0)
    box.finish(on(box, "a"), Outcome.RESET)
    assert box.state("a") == "ejected"
    box.poll(19.0)
    assert box.state("a") == "ejected"
    box.poll(1.1)
    assert box.state("a") == "trial"


def test_a_trial_that_the_client_left_is_followed_by_another(box: Box) -> None:
    box.join("a", "b")
    break_replica(box, "a")
    box.poll(10.0)
    box.finish(on(box, "a"), Outcome.CLIENT_CLOSED)
    assert box.state("a") == "trial"
    box.finish(on(box, "a"))
    assert box.state("a") == "ready"


def test_refused_twice_is_out_until_one_probe_passes(box: Box) -> None:
    box.join("a", "b")
    for _ in range(2):
        ticket = on(box, "a")
        again = box.balancer.retry(ticket, Outcome.CONNECT_FAILED, box.now)
        assert isinstance(again, Routed)
        assert ticket.replica is box.balancer.replicas["b"]
        box.finish(ticket)
    assert box.state("a") == "failed"
    assert ReplicaChanged("a", "ready", "failed", "connections refused") in box.effects
    box.probe("a")
    assert box.state("a") == "ready"


def test_a_503_that_says_loading_takes_it_out_without_a_mark(box: Box) -> None:
    box.join("a", "b")
    ticket = on(box, "a")
    assert isinstance(box.balancer.retry(ticket, Outcome.LOADING, box.now, status=503), Routed)
    assert box.state("a") == "joining"
    assert box.balancer.replicas["a"].outlier.faults == 0


def test_an_overloaded_replica_rests_as_long_as_it_asks(box: Box) -> None:
    box.join("a", "b")
    ticket = on(box, "a")
    assert isinstance(box.balancer.retry(ticket, Outcome.OVERLOADED, box.now, status=429, retry_after_s=5.0), Routed)
    assert box.state("a") == "ready"
    assert set(box.where(10)) == {"b"}
    box.poll(5.0)
    assert "a" in box.where(30)


def test_a_lost_gpu_is_out_at_once_and_probes_do_not_help(box: Box) -> None:
    box.join("a", "b")
    box.effects += box.balancer.observe_gpu("a", GpuReading(GpuState.LOST, reason="XID 79"), box.now)
    assert box.state("a") == "failed"
    box.probe("a", READY, 5)
    assert box.state("a") == "failed"
    box.effects += box.balancer.observe_gpu("a", GpuReading(), box.now)
    box.probe("a", READY, 2)
    assert box.state("a") == "ready"


def test_a_throttled_gpu_gets_less(box: Box) -> None:
    box.join("a", "b")
    box.balancer.observe_gpu("a", GpuReading(GpuState.DEGRADED, speed_ratio=0.4, reason="thermal"), box.now)
    for _ in range(60):
        box.routed()
    counts = {name: replica.in_flight for name, replica in box.balancer.replicas.items()}
    assert counts["a"] < counts["b"] * 0.7
    assert counts["a"] > 0


def test_a_replica_that_answers_nothing_very_fast_is_ejected(box: Box) -> None:
    box.join("a", "b")
    for _ in range(5):
        ticket = on(box, "a")
        ticket.bytes_out = 280  # a chunk that says "stop", and [DONE]
        box.now += 0.001
        box.finish(ticket, usage=Usage(500, 0))
    assert box.state("a") == "ejected"
    assert "empty" in box.balancer.replicas["a"].reason


def test_a_fast_answer_with_content_is_not_hollow(box: Box) -> None:
    """Asked for a stream, answered in one piece: no events, but bytes."""
    box.join("a", "b")
    for _ in range(10):
        ticket = on(box, "a")
        ticket.bytes_out = 900
        box.now += 0.001
        box.finish(ticket, usage=Usage(500, None))
    assert box.state("a") == "ready"


def test_drained_gets_nothing_new_and_ends_what_it_has(box: Box) -> None:
    box.join("a", "b")
    ticket = on(box, "a")
    box.effects += box.balancer.drain("a", box.now)
    assert box.state("a") == "draining"
    assert box.where(10) == {"b": 10}
    box.probe("a", FAILED, 5)
    assert box.state("a") == "draining"
    box.finish(ticket)
    assert box.state("a") == "draining"
    box.probe("a", READY, 2)
    box.effects += box.balancer.undrain("a", box.now)
    assert box.state("a") == "ready"


def test_a_drain_that_takes_too_long_is_ended(box: Box) -> None:
    box.join("a", "b")
    ticket = on(box, "a")
    box.effects += box.balancer.drain("a", box.now, deadline_s=30.0)
    assert box.balancer.next_deadline() == box.now + 30.0
    assert box.poll(29.0) == []
    assert box.poll(1.0) == [Abort(ticket, Reason.DRAIN_DEADLINE)]
    assert box.poll(1.0) == []


def test_a_vanished_replica_drains_and_is_gone_with_its_last_request(box: Box) -> None:
    box.join("a", "b")
    ticket = on(box, "a")
    box.endpoints(endpoint("b"))
    assert set(box.balancer.replicas) == {"b"}
    effects = box.finish(ticket)
    assert ReplicaChanged("a", "draining", "gone", "empty") in effects
    assert [one.id for one in box.balancer.view(box.now).replicas] == ["b"]


def test_a_replica_that_comes_back_before_it_is_gone_is_the_same(box: Box) -> None:
    box.join("a", "b")
    on(box, "a")
    before = box.balancer.replicas["a"]
    box.endpoints(endpoint("b"))
    box.endpoints(endpoint("a"), endpoint("b"))
    assert box.balancer.replicas["a"] is before
    assert box.state("a") == "ready"


def test_the_same_name_at_another_address_is_another_replica(box: Box) -> None:
    box.join("a", "b")
    on(box, "a", prefix=(1, 2, 3))
    before = box.balancer.replicas["a"]
    box.endpoints(endpoint("a", weight=2.0), endpoint("b"))
    assert box.balancer.replicas["a"] is before
    moved = endpoint("a")
    box.endpoints(type(moved)(id="a", host="elsewhere", port=1, models=("m",)), endpoint("b"))
    assert box.balancer.replicas["a"] is not before
    assert box.balancer.replicas["a"].index != before.index
    assert box.state("a") == "joining"


def test_unhealthy_with_one_joining_waits(box: Box) -> None:
    box.join("a", "b")
    box.probe("a", FAILED, 3)
    box.probe("b", LOADING)
    assert isinstance(box.offer(), Queued)


def test_ejected_cannot_leave_no_one(box: Box) -> None:
    """All answers are 500: half is out, the rest goes on answering, and nobody waits."""
    box.join("a", "b")
    for _ in range(30):
        decision = box.offer()
        assert not isinstance(decision, Rejected | Queued)
        box.finish(decision.ticket, Outcome.SERVER_ERROR, status=500)
    assert sorted(box.state(name) for name in "ab") == ["ejected", "ready"]


def test_hollow_does_not_apply_to_embeddings() -> None:
    from lb.request import SurfaceName

    box = Box(settings())
    box.join("a", "b")
    for _ in range(10):
        ticket = on(box, "a", surface=SurfaceName.EMBEDDINGS, stream=False)
        box.balancer.finish(ticket, Outcome.OK, box.now)
    assert box.state("a") == "ready"
