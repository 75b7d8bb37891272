"""Second tries: which failures, where, and within which budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.effects import Outcome, Queued, Routed, TicketState
from lb.retry import RetryBudget, retriable
from lb.settings import RetrySettings
from tests.lb.balancer.driver import Box, settings

SETTINGS = RetrySettings()


@pytest.mark.parametrize(
    "outcome", [Outcome.CONNECT_FAILED, Outcome.CONNECT_TIMEOUT, Outcome.RESET, Outcome.LOADING, Outcome.OVERLOADED]
)
def test_what_another_replica_may_do_better(outcome: Outcome) -> None:
    assert retriable(outcome, 0, 0, SETTINGS)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.OK, Outcome.CLIENT_CLOSED, Outcome.CLIENT_ERROR, Outcome.FIRST_BYTE_TIMEOUT, Outcome.IDLE_TIMEOUT,
        Outcome.WRITE_STALLED, Outcome.TRUNCATED, Outcome.INVALID, Outcome.ABORTED,
    ],
)  # fmt: skip
def test_what_is_passed_on(outcome: Outcome) -> None:
    assert not retriable(outcome, 500, 10, SETTINGS)


@pytest.mark.parametrize(
    ("status", "in_a_row", "asked_for", "again"),
    [(500, 1, False, False), (500, 3, False, True), (502, 1, False, True), (504, 1, False, True), (500, 1, True, True)],
)
def test_a_lone_500_is_passed_on(status: int, in_a_row: int, asked_for: bool, again: bool) -> None:
    policy = RetrySettings(on_server_error=asked_for)
    assert retriable(Outcome.SERVER_ERROR, status, in_a_row, policy) is again


def test_the_budget_starts_full_and_refills_with_time() -> None:
    budget = RetryBudget(RetrySettings(budget_min_tokens=6000), 0.0)
    assert budget.spend(6000.0, 0.0)
    assert not budget.spend(1.0, 0.0)
    assert budget.level(30.0) == pytest.approx(3000.0)
    assert budget.level(1000.0) == pytest.approx(6000.0)


def test_the_budget_grows_with_traffic() -> None:
    budget = RetryBudget(RetrySettings(budget_min_tokens=0, budget_ratio=0.2), 0.0)
    budget.offered += 10_000.0
    assert budget.level(0.0) == pytest.approx(2000.0)
    assert budget.level(600.0) < 1.0, "what was offered ten minutes ago allows nothing now"


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 5), st.floats(0, 5000)), max_size=100))
def test_retries_stay_within_their_share(steps: list[tuple[float, float, float]]) -> None:
    budget = RetryBudget(RetrySettings(budget_min_tokens=0, budget_ratio=0.2), 0.0)
    now = offered = spent = 0.0
    for arrive, wait, want in steps:
        now += wait
        offered += arrive
        budget.offered += arrive
        if budget.spend(want, now):
            spent += want
    assert spent <= 0.2 * offered + 1e-6


@pytest.fixture
def three() -> Box:
    box = Box(settings())
    box.join("a", "b", "c")
    return box


def test_a_second_try_goes_elsewhere_and_leaves_nothing_behind(three: Box) -> None:
    ticket = three.routed()
    first = ticket.replica
    assert isinstance(three.balancer.retry(ticket, Outcome.RESET, three.now), Routed)
    second = ticket.replica
    assert first is not None
    assert second is not None
    assert second is not first
    assert (first.in_flight, first.waiting_tokens, second.in_flight) == (0, 0.0, 1)
    assert ticket.attempts == 2
    assert ticket.excluded == (first.id,)
    assert first.outlier.faults == 1


def test_three_tries_in_all(three: Box) -> None:
    ticket = three.routed()
    assert isinstance(three.balancer.retry(ticket, Outcome.RESET, three.now), Routed)
    assert isinstance(three.balancer.retry(ticket, Outcome.RESET, three.now), Routed)
    last = ticket.replica
    assert three.balancer.retry(ticket, Outcome.RESET, three.now) is None
    assert ticket.state is TicketState.ROUTED
    assert ticket.replica is last
    three.finish(ticket, Outcome.RESET)
    assert last is not None
    assert last.outlier.faults == 1, "the last failure counts once"


def test_refused_connections_cost_neither_tries_nor_budget() -> None:
    box = Box(settings(retries={"attempts": 1, "budget_ratio": 0.0, "budget_min_tokens": 0}))
    box.join("a", "b", "c", "d")
    ticket = box.routed()
    for _ in range(3):
        assert isinstance(box.balancer.retry(ticket, Outcome.CONNECT_FAILED, box.now), Routed)
    assert box.balancer.retry(ticket, Outcome.CONNECT_FAILED, box.now) is None


def test_an_empty_budget_passes_the_failure_on() -> None:
    box = Box(settings(retries={"budget_ratio": 0.0, "budget_min_tokens": 500}))
    box.join("a", "b", "c")
    first, second = box.routed(prompt_tokens=400), box.routed(prompt_tokens=400)
    assert isinstance(box.balancer.retry(first, Outcome.RESET, box.now), Routed)
    assert box.balancer.retry(second, Outcome.RESET, box.now) is None


def test_no_other_replica_no_retry(box_of_one: Box) -> None:
    ticket = box_of_one.routed()
    assert box_of_one.balancer.retry(ticket, Outcome.RESET, box_of_one.now) is None


@pytest.fixture
def box_of_one() -> Box:
    box = Box(settings())
    box.join("a")
    return box


def test_a_failed_try_waits_if_the_others_are_full() -> None:
    box = Box(settings(admission={"default_max_in_flight": 1}))
    box.join("a", "b")
    ticket, other = box.routed(), box.routed()
    assert isinstance(box.balancer.retry(ticket, Outcome.CONNECT_FAILED, box.now), Queued)
    assert ticket.replica is None
    assert box.finish(other) == [Routed(ticket)]
    assert ticket.replica is other.replica


def test_overload_is_passed_on_if_nobody_else_has_room() -> None:
    box = Box(settings(admission={"default_max_in_flight": 1}))
    box.join("a", "b")
    ticket = box.routed()
    box.routed()
    assert box.balancer.retry(ticket, Outcome.OVERLOADED, box.now, status=429) is None


def test_all_replicas_answer_500_and_the_500_is_passed_on() -> None:
    box = Box(settings(retries={"on_server_error": True}))
    box.join("a", "b", "c")
    ticket = box.routed()
    while isinstance(box.balancer.retry(ticket, Outcome.SERVER_ERROR, box.now, status=500), Routed):
        pass
    box.finish(ticket, Outcome.SERVER_ERROR, status=500)
    assert ticket.attempts == 3
    faults = [replica.outlier.faults for replica in box.balancer.replicas.values()]
    assert faults == [0, 0, 0], "what every replica answers with 500 is the request's fault"


def test_a_replica_that_dies_healthy_is_found_by_its_500s() -> None:
    """A vLLM told to stop: health 200, every chat 500. The third is tried elsewhere, the fifth takes it out."""
    box = Box(settings())
    box.join("a", "b")
    passed_on = 0
    for _ in range(40):
        ticket = box.routed()
        assert ticket.replica is not None
        if ticket.replica.id == "b":
            box.finish(ticket, Outcome.CLIENT_CLOSED)
            continue
        if box.balancer.retry(ticket, Outcome.SERVER_ERROR, box.now, status=500) is None:
            passed_on += 1
            box.finish(ticket, Outcome.SERVER_ERROR, status=500)
        else:
            box.finish(ticket)
    assert passed_on == 2
    assert box.state("a") == "ejected"
