"""The wheel: a deadline fires once, not before its time, at most a tick late, wherever it was moved meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lb.proxy.deadlines import NEVER, TICK_S, Deadlines


class Loop:
    """A loop whose time is moved by hand; knows one kind of timer."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        entry = (self.now + delay, callback)
        self.timers.append(entry)
        timers = self.timers

        class Handle:
            def cancel(self) -> None:
                timers.remove(entry)

        return Handle()

    def advance(self, to: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= to]:
            timer = min(due)
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = to


class Item:
    def __init__(self) -> None:
        self.deadline_at = NEVER
        self.bucket_at = NEVER
        self.fired: list[float] = []

    def on_deadline(self, now: float) -> None:
        self.fired.append(now)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 20.0)), min_size=1, max_size=20))
def test_only_the_last_deadline_counts(moves: list[tuple[float, float]]) -> None:
    loop = Loop()
    wheel, item = Deadlines(loop), Item()  # type: ignore[arg-type]
    expected: list[float] = []
    at = NEVER
    for wait, delay in moves:
        later = loop.now + wait
        if at <= later:
            expected.append(at)
            at = NEVER
        loop.advance(max(later, expected[-1] + 2 * TICK_S if expected else later))
        at = loop.now + delay
        wheel.set(item, at)
    expected.append(at)
    loop.advance(at + 1.0)
    assert len(item.fired) == len(expected)
    for due, fired in zip(expected, item.fired, strict=True):
        assert due <= fired <= due + 2.1 * TICK_S
    assert item.deadline_at == NEVER


def test_a_deadline_that_is_moved_by_its_attribute_alone_fires_at_its_new_time() -> None:
    loop, item = Loop(), Item()
    wheel = Deadlines(loop)  # type: ignore[arg-type]
    wheel.set(item, loop.now + 1.0)
    item.deadline_at = loop.now + 5.0
    loop.advance(loop.now + 4.9)
    assert item.fired == []
    loop.advance(loop.now + 0.3)
    assert len(item.fired) == 1


def test_a_disarmed_deadline_never_fires_and_the_wheel_then_stands_still() -> None:
    loop, item = Loop(), Item()
    wheel = Deadlines(loop)  # type: ignore[arg-type]
    wheel.set(item, loop.now + 1.0)
    item.deadline_at = NEVER
    loop.advance(loop.now + 10.0)
    assert item.fired == []
    assert loop.timers == []


def test_the_wheel_lets_go_of_what_is_done_long_before_its_deadline_would_have_come() -> None:
    loop, item = Loop(), Item()
    wheel = Deadlines(loop)  # type: ignore[arg-type]
    wheel.set(item, loop.now + 300.0)
    item.deadline_at = NEVER  # closed
    loop.advance(loop.now + 6.0)
    assert item.bucket_at == NEVER
    assert loop.timers == []


def test_a_deadline_far_ahead_fires_at_its_time_all_the_same() -> None:
    loop, item = Loop(), Item()
    wheel = Deadlines(loop)  # type: ignore[arg-type]
    wheel.set(item, loop.now + 300.0)
    loop.advance(loop.now + 299.9)
    assert item.fired == []
    loop.advance(loop.now + 0.3)
    assert len(item.fired) == 1
