"""Misses: every request counts once, whatever became of it, and only the service's own failings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.effects import Outcome, Rejected
from lb.request import Usage
from lb.signals import Objective, Tail
from lb.views import ModelDemand
from tests.lb.balancer.driver import Box, settings

FAST = Objective(first_token_s=2.0, inter_token_s=0.1)


@pytest.fixture
def box() -> Box:
    one = Box(settings(admission={"default_max_in_flight": 2, "queue_requests": 1}))
    one.join("a")
    one.balancer.expect({"m": FAST}, None, one.now)
    return one


def seen(box: Box) -> ModelDemand:
    return box.balancer.demand(box.now).models["m"]


def stream(box: Box, first_s: float, gap_s: float, tokens: int = 11) -> None:
    ticket = box.routed()
    box.now += first_s
    box.balancer.first_byte(ticket, box.now)
    box.now += gap_s * (tokens - 1)
    ticket.events, ticket.bytes_out, ticket.progress_at = tokens, 1000, box.now
    box.finish(ticket, usage=Usage(500, tokens))


@pytest.mark.parametrize(
    ("first_s", "gap_s", "missed"), [(1.9, 0.09, 0), (2.1, 0.05, 1), (0.5, 0.12, 1), (5.0, 0.5, 1)]
)
def test_late_or_slow_streams_miss_once(box: Box, first_s: float, gap_s: float, missed: int) -> None:
    stream(box, first_s, gap_s)
    assert (seen(box).missed_total, seen(box).served_total) == (missed, 1)


@pytest.mark.parametrize(("took_s", "missed"), [(11.9, 0), (12.2, 1)])
def test_an_answer_in_one_piece_may_take_what_its_tokens_may(box: Box, took_s: float, missed: int) -> None:
    ticket = box.routed(stream=False)
    box.now += took_s
    ticket.bytes_out = 1000
    box.finish(ticket, usage=Usage(500, 100))
    assert seen(box).missed_total == missed


def test_refusals_and_failures_miss_and_the_clients_own_doing_does_not(box: Box) -> None:
    first, second = box.routed(), box.routed()
    waiting = box.queued()
    assert isinstance(box.offer(), Rejected)
    assert seen(box).missed_total == 1
    box.finish(first, Outcome.SERVER_ERROR, status=500)
    assert seen(box).missed_total == 2
    box.finish(second, Outcome.CLIENT_ERROR, status=422)
    box.finish(waiting, Outcome.CLIENT_CLOSED)
    assert (seen(box).missed_total, seen(box).offered_total) == (2, 4)


@pytest.mark.parametrize(("waited_s", "missed"), [(1.0, 0), (3.0, 1)])
def test_a_client_that_left_because_it_waited_in_vain_is_a_miss(box: Box, waited_s: float, missed: int) -> None:
    box.routed(), box.routed()
    waiting = box.queued()
    box.now += waited_s
    box.finish(waiting, Outcome.CLIENT_CLOSED)
    assert seen(box).missed_total == missed


def test_what_nobody_expects_anything_of_is_not_counted() -> None:
    box = Box(settings())
    box.join("a")
    stream(box, 9.0, 9.0)
    assert (seen(box).missed_total, seen(box).first_token_p95_s, seen(box).served_total) == (None, None, 1)


def test_models_that_come_later_have_the_objective_of_those_not_named() -> None:
    box = Box(settings())
    box.balancer.expect({}, FAST, box.now)
    box.join("a")
    stream(box, 3.0, 0.01)
    assert seen(box).missed_total == 1
    box.balancer.expect({"m": Objective(5.0, 1.0)}, None, box.now)
    stream(box, 3.0, 0.01)
    assert seen(box).missed_total == 1, "what was counted stays, and the new objective holds"


def test_percentiles_are_of_the_last_minutes(box: Box) -> None:
    for _ in range(19):
        stream(box, 0.5, 0.02)
    stream(box, 1.5, 0.02)
    p95 = seen(box).first_token_p95_s
    assert p95 == pytest.approx(0.5, rel=0.16)
    assert seen(box).inter_token_p95_s == pytest.approx(0.02, rel=0.16)
    assert seen(box).latency_p95_s == pytest.approx(0.7, rel=0.16)
    box.now += 130.0
    assert seen(box).first_token_p95_s is None


@given(st.lists(st.floats(0.002, 3000.0), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_is_never_too_low_and_little_too_high(values: list[float], level: float) -> None:
    tail = Tail(0.0)
    for value in values:
        tail.add(value, 1.0)
    exact = next(one for index, one in enumerate(sorted(values), 1) if index >= level * len(values) - 1e-9)
    found = tail.quantile(level, 2.0)
    assert found is not None
    assert exact * 0.999 <= found <= exact * 1.151


@given(st.lists(st.tuples(st.floats(0.0, 90.0), st.floats(0.01, 10.0)), max_size=60), st.floats(0.0, 200.0))
def test_nothing_is_older_than_three_minutes_and_the_last_minute_is_whole(
    steps: list[tuple[float, float]], wait: float
) -> None:
    tail, now, happened = Tail(0.0), 0.0, []
    for pause, value in steps:
        now += pause
        tail.add(value, now)
        happened.append((now, value))
    now += wait
    top = tail.quantile(1.0, now)
    recent = [value for at, value in happened if at > now - 60.0]
    possible = [value for at, value in happened if at >= now - 180.0]
    if recent:
        assert top is not None
        assert top >= max(recent) * 0.999
    if top is not None:
        assert top <= max(possible) * 1.151
