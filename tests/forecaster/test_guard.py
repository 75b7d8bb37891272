"""Bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.guard import bounded, recent_peak, usable

NAN = float("nan")


def test_the_peak_is_that_of_the_last_week() -> None:
    history = np.concatenate([[900.0], np.full(7 * 24, 5.0)])
    history[40] = 8.0
    assert recent_peak(history, 3600) == 8.0


def test_with_a_week_lost_the_peak_is_that_of_before() -> None:
    assert recent_peak(np.concatenate([[900.0, 3.0], np.full(7 * 24, NAN)]), 3600) == 900.0


@pytest.mark.parametrize("history", [[], [NAN, NAN]])
def test_of_nothing_the_peak_is_nothing(history: list[float]) -> None:
    assert recent_peak(np.array(history), 3600) == 0.0


@pytest.mark.parametrize("bad", [NAN, np.inf, -np.inf])
def test_one_value_that_is_no_number_spoils_all(bad: float) -> None:
    got, problem = usable(np.array([[1.0, 2.0], [3.0, bad]]), 7.0)
    assert (got == 7.0).all()
    assert "no number" in problem


def test_numbers_stay_as_they_are() -> None:
    got, problem = usable(np.array([1.0, 2.0]), 7.0)
    assert got.tolist() == [1.0, 2.0]
    assert problem == ""


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=4, max_size=4), st.lists(st.floats(0, 1e300), min_size=4, max_size=4)
)
def test_i11_what_explodes_is_capped_at_whatever_the_history_allows(values: list[float], most: list[float]) -> None:
    got = bounded(np.array(values), np.sort(most))
    assert (got >= 0.0).all()
    assert (got <= np.sort(most)).all()
    assert (np.diff(got) >= 0.0).all()
