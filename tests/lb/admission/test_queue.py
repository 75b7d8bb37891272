import math
import random
import time

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lb.admission.queue import PRIORITY_BOUND, WaitQueue
from lb.effects import Ticket, TicketState
from lb.errors import Reason
from lb.request import RequestInfo
from lb.settings import AdmissionSettings


def ticket(name: str = "r") -> Ticket:
    return Ticket(RequestInfo(name), TicketState.QUEUED, 0.0)


def queue(**changes: object) -> WaitQueue:
    return WaitQueue(AdmissionSettings(**changes))  # type: ignore[arg-type]


def anything(pool_key: str) -> bool:
    return True


def put(waiting: WaitQueue, name: str, pool: str = "a", priority: int = 0, deadline_at: float = 100.0) -> Ticket:
    made = ticket(name)
    assert waiting.push(made, pool, priority, deadline_at, 10, 0.0) is None
    return made


def test_first_come_within_a_class_and_urgent_classes_first() -> None:
    waiting = queue()
    normal = [put(waiting, "n1", "a"), put(waiting, "n2", "b"), put(waiting, "n3", "a")]
    urgent, idle = put(waiting, "u", "b", -1), put(waiting, "i", "a", 5)
    assert waiting.depth_by_priority() == {-1: 1, 0: 3, 5: 1}
    assert [waiting.pop(1.0, anything) for _ in range(6)] == [urgent, *normal, idle, None]
    assert len(waiting) == waiting.bytes == 0
    assert waiting.depth_by_priority() == {}


def test_a_pool_without_room_blocks_no_other() -> None:
    waiting = queue()
    blocked = put(waiting, "urgent", "full", -5)
    later = put(waiting, "later", "free", 3)
    assert waiting.pop(1.0, lambda pool: pool == "free") is later
    assert waiting.pop(1.0, lambda pool: pool == "free") is None
    assert waiting.pop(1.0, anything) is blocked


def test_a_pool_without_room_is_asked_about_once_however_many_wait() -> None:
    waiting = queue()
    for number in range(500):
        put(waiting, str(number), "full")
    last = put(waiting, "last", "free")
    asked: list[str] = []

    def fits(pool: str) -> bool:
        asked.append(pool)
        return pool == "free"

    assert waiting.pop(1.0, fits) is last
    assert asked == ["full", "free"]


def test_pop_from_takes_one_pools_next_by_priority() -> None:
    waiting = queue()
    first, _, urgent = put(waiting, "1", "a"), put(waiting, "2", "b", -9), put(waiting, "3", "a", -1)
    assert [waiting.pop_from("a", 1.0) for _ in range(3)] == [urgent, first, None]
    assert waiting.depth("b") == 1


def test_full_by_count_by_bytes_and_turned_off() -> None:
    waiting = queue(queue_requests=2, queue_body_bytes=100)
    assert waiting.push(ticket(), "a", 0, 9.0, 60, 0.0) is None
    assert waiting.push(ticket(), "a", 0, 9.0, 60, 0.0) is Reason.QUEUE_FULL
    assert waiting.push(ticket(), "a", 0, 9.0, 40, 0.0) is None
    assert waiting.push(ticket(), "a", 0, 9.0, 0, 0.0) is Reason.QUEUE_FULL
    assert queue(queue=False).push(ticket(), "a", 0, 9.0, 0, 0.0) is Reason.QUEUE_FULL


def test_a_client_that_left_leaves_the_queue() -> None:
    waiting = queue()
    first, second = put(waiting, "1"), put(waiting, "2")
    assert waiting.remove(first)
    assert not waiting.remove(first)
    assert waiting.bytes == 10
    assert waiting.pop(1.0, anything) is second


def test_deadlines() -> None:
    waiting = queue()
    late, soon = put(waiting, "late", deadline_at=9.0), put(waiting, "soon", deadline_at=3.0)
    never = put(waiting, "never", deadline_at=math.inf)
    assert waiting.next_deadline() == 3.0
    assert waiting.expired(2.9) == []
    assert waiting.expired(3.0) == [soon]
    assert waiting.pop(9.0, anything) is never, "what is past its deadline is not handed out"
    assert waiting.expired(9.0) == [late]
    assert waiting.next_deadline() is None


def test_ages_depths_and_pools() -> None:
    waiting = queue()
    waiting.push(ticket(), "a", 0, 99.0, 1, 5.0)
    waiting.push(ticket(), "a", -1, 99.0, 1, 7.0)
    assert waiting.oldest_age_s("a", 10.0) == 5.0
    assert waiting.oldest_age_s("b", 10.0) == 0.0
    assert waiting.depth("a") == 2
    assert waiting.pools() == ("a",)


def test_retry_after_is_the_depth_over_the_measured_rate() -> None:
    waiting = queue(queue_wait_s=60.0)
    for number in range(200):
        put(waiting, str(number), deadline_at=1e9)
    for second in range(1, 121):
        assert waiting.pop(second * 0.5, anything) is not None
    assert waiting.releases_per_s("a", 60.0) == pytest.approx(2.0, rel=0.15)
    assert waiting.retry_after_s("a", 60.0) == pytest.approx(40, abs=6)
    assert waiting.retry_after_s("a", 600.0) == 60.0, "nothing has moved for ten minutes"


def test_retry_after_bounds() -> None:
    waiting = queue(queue_wait_s=30.0)
    assert waiting.retry_after_s("a", 0.0) == 1.0
    put(waiting, "1")
    assert waiting.retry_after_s("a", 0.0) == 30.0
    waiting.pop(0.1, anything)
    for number in range(3):
        put(waiting, str(number))
    for _ in range(2):
        waiting.pop(0.2, anything)
    assert 1.0 <= waiting.retry_after_s("a", 0.3) <= 2.0


def test_priorities_are_bounded_to_some_classes() -> None:
    waiting = queue()
    for number in range(2000):
        waiting.push(ticket(), "a", (number - 1000) * 10**6, 9.0, 0, 0.0)
    assert len(waiting.depth_by_priority()) <= 2 * PRIORITY_BOUND + 1


def test_churn_of_leaving_clients_leaves_nothing_behind() -> None:
    waiting = queue()
    put(waiting, "stays", deadline_at=1e9)
    for number in range(5000):
        assert waiting.remove(put(waiting, str(number), deadline_at=1e6 + number))
    assert len(waiting) == 1
    assert len(waiting._deadlines) < 200
    assert sum(len(group.heads) for group in waiting._classes.values()) < 200


def test_reconfigure_changes_the_bounds_and_keeps_what_waits() -> None:
    waiting = queue(queue_requests=5)
    for number in range(5):
        put(waiting, str(number))
    waiting.reconfigure(AdmissionSettings(queue_requests=2))
    assert len(waiting) == 5
    assert waiting.push(ticket(), "a", 0, 9.0, 0, 0.0) is Reason.QUEUE_FULL


def test_a_full_queue_is_worked_off_in_linear_time() -> None:
    waiting = queue(queue_requests=8000)
    for number in range(8000):
        put(waiting, str(number), f"pool-{number % 7}", number % 3, 1e9)
    began = time.process_time()
    while waiting.pop(1.0, anything) is not None:
        pass
    assert time.process_time() - began < 1.0, "about 5 us each; quadratic would take half a minute"


class Model(RuleBasedStateMachine):
    """The queue against a plain list, sorted anew for each question."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue(queue_requests=12, queue_body_bytes=500)
        self.waiting: list[tuple[int, int, str, float, int, Ticket]] = []
        self.sequence = 0
        self.now = 0.0

    @rule(
        pool=st.sampled_from("abc"), priority=st.integers(-2, 2), patience=st.floats(0.1, 30), size=st.integers(0, 100)
    )
    def push(self, pool: str, priority: int, patience: float, size: int) -> None:
        made = ticket()
        full = len(self.waiting) >= 12 or sum(entry[4] for entry in self.waiting) + size > 500
        refused = self.queue.push(made, pool, priority, self.now + patience, size, self.now)
        assert (refused is Reason.QUEUE_FULL) == full
        if refused is None:
            self.sequence += 1
            self.waiting.append((priority, self.sequence, pool, self.now + patience, size, made))

    @rule(room=st.sets(st.sampled_from("abc")))
    def pop(self, room: set[str]) -> None:
        fitting = sorted(entry for entry in self.waiting if entry[2] in room and entry[3] > self.now)
        got = self.queue.pop(self.now, room.__contains__)
        assert got is (fitting[0][5] if fitting else None)
        if fitting:
            self.waiting.remove(fitting[0])

    @rule(pool=st.sampled_from("abc"))
    def pop_from(self, pool: str) -> None:
        fitting = sorted(entry for entry in self.waiting if entry[2] == pool and entry[3] > self.now)
        assert self.queue.pop_from(pool, self.now) is (fitting[0][5] if fitting else None)
        if fitting:
            self.waiting.remove(fitting[0])

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(entry[5])
        self.waiting.remove(entry)

    @rule(step=st.floats(0, 10))
    def expire(self, step: float) -> None:
        self.now += step
        gone = {id(entry[5]) for entry in self.waiting if entry[3] <= self.now}
        assert {id(one) for one in self.queue.expired(self.now)} == gone
        self.waiting = [entry for entry in self.waiting if id(entry[5]) not in gone]

    @rule(step=st.floats(0, 10))
    def pass_time(self, step: float) -> None:
        self.now += step

    @invariant()
    def agrees(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.bytes == sum(entry[4] for entry in self.waiting)
        assert self.queue.next_deadline() == min((entry[3] for entry in self.waiting), default=None)
        for pool in "abc":
            assert self.queue.depth(pool) == sum(entry[2] == pool for entry in self.waiting)
            assert 1.0 <= self.queue.retry_after_s(pool, self.now) <= 60.0


Model.TestCase.settings = hypothesis_settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAgainstModel = Model.TestCase


def test_random_order_of_leaving_never_loses_the_head() -> None:
    choose = random.Random(7)
    waiting = queue()
    tickets = [put(waiting, str(number), choose.choice("abcd"), choose.randint(-1, 1)) for number in range(300)]
    choose.shuffle(tickets)
    for gone in tickets[:150]:
        assert waiting.remove(gone)
    left = {id(one) for one in tickets[150:]}
    while (got := waiting.pop(1.0, anything)) is not None:
        left.remove(id(got))
    assert not left
