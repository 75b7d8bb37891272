"""The gate."""

from __future__ import annotations

from forecaster.trust import Change, Gate

NAN = float("nan")


def opened() -> Gate:
    gate = Gate()
    gate.judge(0.5, 1.0, 100)
    return gate


def test_it_is_closed_until_something_was_proved() -> None:
    gate = Gate()
    assert not gate.trusted
    assert gate.judge(0.1, 1.0, 23) is None
    assert not gate.trusted
    assert gate.reason == "23 forecasts have come true, 24 are needed"


def test_it_opens_with_a_reason_once_acting_on_it_was_cheaper() -> None:
    gate = Gate()
    assert gate.judge(0.5, 1.0, 24) == Change(
        True, "acting on it cost 0.50 times the cost of acting on the last value, over the last day"
    )
    assert gate.trusted
    assert gate.judge(0.4, 1.0, 25) is None


def test_it_closes_with_a_reason_once_it_was_dearer() -> None:
    change = opened().judge(1.2, 1.0, 200)
    assert change is not None
    assert not change.trusted
    assert "1.20 times" in change.reason


def test_it_does_not_flutter_around_even() -> None:
    gate = opened()
    assert [gate.judge(cost, 1.0, 100) for cost in (1.0, 1.02, 0.995, 1.02)] == [None] * 4
    assert gate.trusted
    closed = Gate()
    assert [closed.judge(cost, 1.0, 100) for cost in (1.0, 0.995, 1.02)] == [None] * 3
    assert not closed.trusted


def test_what_is_no_number_is_no_proof() -> None:
    for cost, last in ((NAN, 1.0), (1.0, NAN), (NAN, NAN)):
        gate = opened()
        assert gate.judge(cost, last, 100) is not None
        assert not gate.trusted


def test_where_the_last_value_costs_nothing_nothing_can_be_cheaper() -> None:
    gate = Gate()
    assert gate.judge(0.0, 0.0, 100) is None
    assert not gate.trusted
    # One that is trusted already does no harm; one that costs something does.
    gate = opened()
    assert gate.judge(0.0, 0.0, 100) is None
    assert gate.judge(0.1, 0.0, 100) is not None
