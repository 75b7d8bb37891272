"""Series of other steps as minutes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.minutes import minutes_of
from forecaster.series import Series

NAN = float("nan")


def minutes(start_s: int, step_s: int, *values: float) -> Series:
    return minutes_of(Series(start_s, step_s, np.array(values)))


def test_minutes_stay_as_they_are() -> None:
    series = Series(120, 60, np.array([1.0, NAN, 3.0]))
    assert minutes_of(series) is series


def test_of_a_wider_bin_each_minute_gets_its_share_and_a_gap_stays_one() -> None:
    got = minutes(600, 180, 9.0, NAN, 3.0)
    assert (got.start_s, got.step_s) == (600, 60)
    np.testing.assert_allclose(got.values, [3.0, 3.0, 3.0, NAN, NAN, NAN, 1.0, 1.0, 1.0])


def test_narrower_bins_are_added_up_and_scaled_where_half_is_known() -> None:
    got = minutes(0, 15, 1.0, 2.0, 3.0, 4.0, 1.0, NAN, 3.0, NAN, 7.0, NAN, NAN, NAN)
    np.testing.assert_allclose(got.values, [10.0, 8.0, NAN])


def test_bins_that_begin_within_a_minute_are_split_there() -> None:
    got = minutes(30, 60, 10.0, 20.0)
    assert got.start_s == 0
    np.testing.assert_allclose(got.values, [10.0, 15.0, 20.0])
    np.testing.assert_allclose(minutes(45, 60, 10.0, 20.0).values, [NAN, 7.5 + 5.0, 20.0])


def test_of_nothing_there_are_no_minutes() -> None:
    assert len(minutes(30, 90)) <= 1
    assert np.isnan(minutes(30, 90).values).all()


@pytest.mark.parametrize("step_s", [1, 7, 90, 600])
def test_i02_numbers_near_the_largest_stay_finite(step_s: int) -> None:
    got = minutes(0, step_s, *[1.7e308] * 120)
    assert np.isfinite(got.values[:2]).all()


@given(
    st.integers(0, 10_000), st.sampled_from([1, 7, 15, 30, 60, 90, 300, 3600]),
    st.lists(st.none() | st.floats(0, 1e9), min_size=1, max_size=40),
)  # fmt: skip
def test_minutes_hold_the_rates_of_what_they_came_from(start_s: int, step_s: int, values: list[float | None]) -> None:
    got = minutes(start_s, step_s, *(NAN if value is None else value for value in values))
    known = [value for value in values if value is not None]
    found = got.values[~np.isnan(got.values)]
    assert got.start_s % 60 == 0
    assert got.start_s <= start_s < got.start_s + 60
    assert got.end_s - 60 < start_s + step_s * len(values) <= got.end_s
    if not known:
        assert found.size == 0
    elif found.size:
        slack = max(known) / step_s * 60 * 1e-6 + 1e-9
        assert min(known) / step_s * 60 - slack <= found.min() <= found.max() <= max(known) / step_s * 60 + slack
    if len(known) == len(values) and start_s % 60 == 0 and step_s * len(values) % 60 == 0:
        assert float(found.sum()) == pytest.approx(sum(known), rel=1e-6, abs=1e-6)
