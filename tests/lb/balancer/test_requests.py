"""Offers, ends, late binding, refusals."""

from __future__ import annotations

import pytest

from lb.effects import Outcome, Queued, Rejected, Routed, TicketState
from lb.errors import Reason
from lb.request import Usage
from tests.lb.balancer.driver import FAILED, Box, endpoint, settings


@pytest.fixture
def small() -> Box:
    """Two replicas with room for two requests each."""
    box = Box(settings(admission={"default_max_in_flight": 2}))
    box.join("a", "b")
    return box


def test_spreads_a_burst_that_no_reading_has_seen(box: Box) -> None:
    box.join("a", "b", "c", "d")
    tickets = [box.routed() for _ in range(40)]
    counts = [replica.in_flight for replica in box.balancer.replicas.values()]
    assert sum(counts) == 40
    assert max(counts) - min(counts) <= 2
    for ticket in tickets:
        box.finish(ticket)
    for replica in box.balancer.replicas.values():
        assert (replica.in_flight, replica.waiting, replica.unary) == (0, 0, 0)
        assert (replica.waiting_tokens, replica.output_tokens_left, replica.kv_tokens) == (0.0, 0.0, 0.0)


def test_waits_for_room_and_goes_where_room_is_first(small: Box) -> None:
    tickets = [small.routed() for _ in range(4)]
    first, second = small.queued(), small.queued()
    small.now += 1
    effects = small.finish(tickets[2])
    assert effects == [Routed(first)]
    assert first.replica is tickets[2].replica
    assert first.reason == "waited"
    assert second.state is TicketState.QUEUED
    assert small.balancer.view(small.now).queued == 1


def test_a_newcomer_does_not_pass_those_who_wait(small: Box) -> None:
    tickets = [small.routed() for _ in range(4)]
    small.queued()
    replica = tickets[0].replica
    assert replica is not None
    replica.limit += 1  # room appears without an event
    assert isinstance(small.offer(), Queued)


def test_the_urgent_go_first(small: Box) -> None:
    tickets = [small.routed() for _ in range(4)]
    small.queued()
    urgent = small.queued(priority=-5)
    assert small.finish(tickets[0]) == [Routed(urgent)]


def test_a_client_that_leaves_leaves_the_queue(small: Box) -> None:
    tickets = [small.routed() for _ in range(4)]
    gone, stays = small.queued(), small.queued()
    assert small.finish(gone, Outcome.CLIENT_CLOSED) == []
    assert gone.state is TicketState.FINISHED
    assert small.finish(tickets[0]) == [Routed(stays)]


def test_a_ticket_is_finished_once(small: Box) -> None:
    ticket = small.routed()
    small.finish(ticket)
    with pytest.raises(AssertionError, match="once"):
        small.finish(ticket)


def test_full_queue_is_refused_with_an_honest_time() -> None:
    box = Box(settings(admission={"default_max_in_flight": 1, "queue_requests": 1}))
    box.join("a")
    box.routed()
    box.queued()
    refused = box.offer()
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.status) == (Reason.QUEUE_FULL, 429)
    assert refused.retry_after_s is not None
    assert refused.retry_after_s >= 1.0


def test_waiting_ends_after_its_time() -> None:
    box = Box(settings(admission={"default_max_in_flight": 1, "queue_wait": "5s"}))
    box.join("a")
    box.routed()
    waiting = box.queued()
    assert box.balancer.next_deadline() == box.now + 5.0
    assert box.poll(4.9) == []
    (effect,) = box.poll(0.2)
    assert isinstance(effect, Rejected)
    assert (effect.reason, effect.status, effect.ticket) == (Reason.QUEUE_TIMEOUT, 503, waiting)
    assert waiting.state is TicketState.FINISHED
    assert box.balancer.view(box.now).open_tickets == 1


def test_a_deadline_that_passes_while_waiting() -> None:
    box = Box(settings(admission={"default_max_in_flight": 1}))
    box.join("a")
    box.routed()
    box.queued(deadline_at=box.now + 2.0)
    (effect,) = box.poll(2.0)
    assert isinstance(effect, Rejected)
    assert (effect.reason, effect.status) == (Reason.DEADLINE, 504)


def test_a_deadline_that_cannot_be_met_is_refused_at_once(box: Box) -> None:
    box.join("a")
    for _ in range(12):  # the prediction is trusted only after some lessons
        ticket = box.routed()
        box.now += 0.1
        box.balancer.first_byte(ticket, box.now)
        for _ in range(100):
            box.now += 0.013
            ticket.events += 1
        ticket.progress_at = box.now
        box.finish(ticket, usage=Usage(500, 100))
    assert isinstance(box.offer(deadline_at=box.now + 60.0), Routed)
    refused = box.offer(deadline_at=box.now + 0.2)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.DEADLINE


def test_unknown_model_is_404_and_a_model_scaled_to_zero_waits(box: Box) -> None:
    box.join("a")
    refused = box.offer(model="x")
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.status) == (Reason.MODEL_NOT_FOUND, 404)
    box.endpoints(endpoint("z", models=("other",)))
    held = box.queued(model="m")
    demand = box.balancer.demand(box.now).models["m"]
    assert (demand.held, demand.queued, demand.replicas_ready) == (1, 1, 0)
    box.endpoints(endpoint("z", models=("other",)), endpoint("b"))
    box.probe("b")
    assert Routed(held) in box.effects


def test_holds_any_model_while_there_is_no_replica_at_all() -> None:
    box = Box(settings(admission={"cold_wait": "30s"}))
    held = box.queued(model="whatever")
    (effect,) = box.poll(30.0)
    assert isinstance(effect, Rejected)
    assert (effect.reason, effect.ticket) == (Reason.NO_REPLICA, held)


def test_a_held_request_for_a_model_that_turns_out_unknown_is_refused(box: Box) -> None:
    held = box.queued(model="x")
    box.join("a")
    (refused,) = [effect for effect in box.effects if isinstance(effect, Rejected)]
    assert (refused.reason, refused.ticket) == (Reason.MODEL_NOT_FOUND, held)


def test_all_unhealthy_is_said_at_once(box: Box) -> None:
    box.join("a", "b")
    box.probe("a", FAILED, 3)
    box.probe("b", FAILED, 3)
    refused = box.offer()
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.status) == (Reason.ALL_UNHEALTHY, 503)
    assert refused.retry_after_s == 2.0
    assert box.balancer.view(box.now).queued == 0


def test_panic_ignores_health_when_asked_to() -> None:
    box = Box(settings(health={"panic_ratio": 0.5}))
    box.join("a", "b", "c")
    for name in "abc":
        box.probe(name, FAILED, 3)
    assert isinstance(box.offer(), Routed)


def test_shutdown_refuses_new_and_ends_old(small: Box) -> None:
    tickets = [small.routed() for _ in range(4)]
    waiting = small.queued()
    small.balancer.shutdown(small.now)
    refused = small.offer()
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.DRAINING
    assert small.finish(tickets[0]) == [Routed(waiting)]


def test_demand_counts_what_was_offered_whatever_became_of_it(small: Box) -> None:
    tickets = [small.routed() for _ in range(4)]
    small.queued()
    small.now += 2.0
    small.finish(tickets[0], usage=Usage(500, 120))
    demand = small.balancer.demand(small.now).models["m"]
    assert demand.offered_total == 5
    assert demand.prompt_tokens_total == pytest.approx(2500.0)
    assert demand.output_tokens_total == pytest.approx(120.0)
    assert demand.in_flight == 4
    assert demand.requests_per_s == pytest.approx(2.5)
    assert demand.outstanding_tokens > 0.0
    assert demand.backlog_s > 0.0


def test_reconfiguring_keeps_what_was_learned_and_frees_who_waits(small: Box) -> None:
    tickets = [small.routed() for _ in range(4)]
    waiting = small.queued()
    before = small.balancer.replicas["a"].speed
    small.balancer.first_byte(tickets[0], small.now + 0.5)
    effects = small.balancer.reconfigure(settings(admission={"default_max_in_flight": 8}), small.now)
    assert Routed(waiting) in effects
    assert small.balancer.replicas["a"].speed is before
