"""How often the API is asked, with time as a value."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lb.kube.pace import BURST, CALM_S, LONGEST_S, RATE_PER_S, SPACING_S, Pace


def pace() -> Pace:
    return Pace(random.Random(7))


def test_a_burst_goes_at_once_and_then_at_the_rate() -> None:
    calls = pace()
    waits = [calls.take(0.0) for _ in range(BURST + 5)]
    assert waits[:BURST] == [0.0] * BURST
    assert waits[-1] == 5 / RATE_PER_S


def test_failures_in_a_row_wait_longer_and_longer() -> None:
    calls = pace()
    now, waits = 0.0, []
    for _ in range(8):
        calls.failed(now, growing=True)
        wait_s = calls.take(now)
        waits.append(wait_s)
        now += wait_s
    assert all(1.0 <= wait_s <= LONGEST_S * 1.5 for wait_s in waits)
    assert waits[0] < 2.0
    assert waits[-1] >= LONGEST_S
    assert len({round(wait_s % 1, 6) for wait_s in waits}) == len(waits), "no jitter"


def test_calls_that_fail_together_are_one_failure() -> None:
    calls = pace()
    for _ in range(5):
        calls.failed(100.0, growing=True)
    assert calls.take(100.0) < 2.0
    calls.failed(101.9, growing=True)
    assert calls.take(101.9) >= 2.0


def test_an_answer_about_one_call_does_not_make_the_next_ones_wait_longer() -> None:
    calls = pace()
    now = 0.0
    for _ in range(20):
        calls.failed(now, growing=False)
        wait_s = calls.take(now)
        assert SPACING_S <= wait_s <= 1.5 * SPACING_S
        now += wait_s


def test_retry_after_is_honoured() -> None:
    calls = pace()
    calls.failed(100.0, growing=True, retry_after_s=17.0)
    assert calls.take(100.0) >= 17.0


def test_one_success_is_not_the_end_of_trouble() -> None:
    calls = pace()
    now = 0.0
    for _ in range(5):
        calls.failed(now, growing=True)
        now += calls.take(now)
        calls.succeeded(now)  # the list works,
        now += calls.take(now)  # and the watch fails again
    calls.failed(now, growing=True)
    assert calls.take(now) > 8.0


def test_calm_ends_it() -> None:
    calls = pace()
    calls.failed(0.0, growing=True)
    now = calls.take(0.0)
    calls.succeeded(now)
    now += CALM_S + 1
    assert [calls.take(now) for _ in range(BURST)] == [0.0] * BURST


OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from(["fine", "answer", "trouble"]), st.floats(0.0, 3.0), st.one_of(st.none(), st.floats(0.0, 60.0))
    ),
    max_size=80,
)


@given(OUTCOMES, st.integers(0, 1000))
def test_after_any_error_calls_are_a_second_apart(outcomes: list[tuple[str, float, float | None]], seed: int) -> None:
    calls = Pace(random.Random(seed))
    now, previous, in_trouble = 0.0, -1e9, False
    for outcome, idle_s, retry_after_s in outcomes:
        now += idle_s
        now += calls.take(now)
        if in_trouble:
            assert now - previous >= SPACING_S - 1e-9
        previous = now
        if outcome == "fine":
            calls.succeeded(now)
            in_trouble = False  # checked above: only the first call after an error is sure to be one
        else:
            calls.failed(now, growing=outcome == "trouble", retry_after_s=retry_after_s)
            in_trouble = True
