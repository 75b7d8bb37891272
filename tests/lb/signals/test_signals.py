"""Demand windows against a plain list of what happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.signals import ModelSignals, Window


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 1000)), max_size=80), st.floats(0, 200))
def test_a_window_is_the_sum_of_its_last_sixty_seconds(steps: list[tuple[float, float]], wait: float) -> None:
    window, happened, now = Window(), [], 1000.0
    for pause, amount in steps:
        now += pause
        window.add(amount, now)
        happened.append((int(now), amount))
    now += wait
    kept = [amount for second, amount in happened if second > int(now) - 60]
    count, total = window.total(now)
    assert count == len(kept)
    assert total == pytest.approx(sum(kept))


def test_time_that_goes_back_is_ignored() -> None:
    window = Window()
    window.add(1.0, 100.0)
    window.add(2.0, 99.0)
    assert window.total(98.0) == (2, 3.0)


def test_totals_only_rise_and_rates_use_the_time_there_was() -> None:
    signals = ModelSignals(now=10.0)
    for second in range(5):
        signals.offer(100.0, 10.0 + second)
    assert (signals.offered_total, signals.prompt_tokens_total) == (5, 500.0)
    assert signals.span_s(14.0) == 4.0
    assert signals.span_s(10.1) == 1.0
    assert signals.span_s(1000.0) == 60.0


def test_an_empty_queue_leaves_no_rounding() -> None:
    signals = ModelSignals(0.0)
    for _ in range(3):
        signals.wait(0.1, 0.7)
    for left in (2, 1, 0):
        signals.leave_queue(0.1, 0.7, left)
    assert (signals.waiting_prompt_tokens, signals.waiting_output_tokens) == (0.0, 0.0)
