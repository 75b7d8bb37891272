"""What models see of a series."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forecaster.frame import Frame

NAN = float("nan")


def frame_of(*values: float, day: int = 4, offset: float = 10.0, first_phase: int = 0) -> Frame:
    frame = Frame(day, offset, first_phase)
    frame.extend(np.array(values, dtype=np.float64))
    return frame


def test_demand_goes_to_the_scale_and_back() -> None:
    frame = frame_of(0.0, 10.0, 1e6)
    np.testing.assert_allclose(frame.z, np.log([10.0, 20.0, 1e6 + 10.0]))
    np.testing.assert_allclose(frame.demand(frame.z), [0.0, 10.0, 1e6], rtol=1e-9, atol=1e-9)


def test_what_is_lost_carries_the_last_reading_on_and_is_not_seen() -> None:
    frame = frame_of(NAN, 5.0, NAN, NAN, 7.0)
    np.testing.assert_allclose(frame.z, np.log([10.0, 15.0, 15.0, 15.0, 17.0]))
    assert frame.seen.tolist() == [False, True, False, False, True]
    frame.extend(np.array([NAN, 3.0]))
    np.testing.assert_allclose(frame.z[5:], np.log([17.0, 13.0]))


def test_no_point_is_too_large_to_be_demand_and_none_is_negative() -> None:
    frame = frame_of(1.0)
    got = frame.demand(np.array([-1e300, 0.0, 1e300, np.inf]))
    assert np.isfinite(got).all()
    assert got[0] == got[1] == 0.0


def test_means_leave_out_what_was_before_the_first_bin() -> None:
    frame = frame_of(1.0, 2.0, 3.0, 4.0)
    got = frame.mean(np.array([-3, 1, 2]), np.array([2, 3, 2]))
    np.testing.assert_allclose(got, [frame.z[:2].mean(), frame.z[1:3].mean(), frame.z[2]])


def test_the_phase_is_that_of_the_utc_day() -> None:
    assert frame_of(day=4, first_phase=3).phase(np.array([0, 1, 5])).tolist() == [3, 0, 0]


def test_forgetting_days_moves_the_rest_to_the_front() -> None:
    frame = frame_of(*map(float, range(12)))
    kept, mean = frame.z[4:].copy(), frame.mean(np.array([6]), np.array([9]))
    frame.forget(4)
    np.testing.assert_array_equal(frame.z, kept)
    np.testing.assert_allclose(frame.mean(np.array([2]), np.array([5])), mean)
    frame.extend(np.array([99.0]))
    np.testing.assert_allclose(frame.z[-1], np.log(109.0))
    np.testing.assert_allclose(frame.sums[-1], frame.z.sum())


@given(st.lists(st.floats(0, 1e9) | st.just(NAN), max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_in_parts_or_at_once_is_the_same(values: list[float], cuts: list[int]) -> None:
    whole, parts = frame_of(*values), frame_of()
    for part in np.split(np.array(values, dtype=np.float64), sorted(min(cut, len(values)) for cut in cuts)):
        parts.extend(part)
    np.testing.assert_array_equal(whole.z, parts.z)
    np.testing.assert_array_equal(whole.seen, parts.seen)
    np.testing.assert_allclose(whole.sums, parts.sums, rtol=1e-9, atol=1e-9)


def test_it_grows_beyond_its_first_room() -> None:
    frame = frame_of(*([2.0] * 700))
    frame.extend(np.full(3_000, 3.0))
    assert len(frame) == 3_700
    np.testing.assert_allclose(frame.demand(frame.z[[0, 699, 700, 3_699]]), [2.0, 2.0, 3.0, 3.0])
