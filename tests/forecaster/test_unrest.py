"""The expected size of errors."""

from __future__ import annotations

import numpy as np

from forecaster import unrest
from forecaster.frame import Frame
from forecaster.series import Floats

DAY = 24
COUNT = 16 * DAY
RANDOM = np.random.default_rng(6)
CLOCK = np.arange(COUNT) % DAY
# Errors are five times as large from 8 to 16 o'clock.
ERRORS: Floats = (RANDOM.normal(0.0, 1.0, COUNT) * np.where((CLOCK >= 8) & (CLOCK < 16), 0.5, 0.1))[:, None]
TYPICAL = np.array([0.2])


def frame() -> Frame:
    one = Frame(DAY, 100.0)
    one.extend(RANDOM.gamma(5.0, 20.0, COUNT))
    return one


def table_of(one: Frame, sizes: Floats, low: int, high: int, lag: int = 1) -> Floats:
    recent = unrest.averages(sizes, None)
    restless = unrest.restless(one, low, high)
    return unrest.inputs(one, lag, sizes, recent, one.z[:, None], restless, low, high)


def test_hours_with_large_errors_are_expected_to_have_them_again() -> None:
    one, sizes = frame(), unrest.log_size(ERRORS, TYPICAL)
    low = 4 * DAY
    table = table_of(one, sizes, low, COUNT - 1)
    scale = unrest.fit(table, sizes[low : COUNT - 1])
    sigma = scale.of(table)[:, 0]
    clock = CLOCK[low : COUNT - 1]
    busy, quiet = sigma[(clock >= 9) & (clock < 15)].mean(), sigma[clock < 7].mean()
    assert busy > 1.8 * quiet
    assert np.exp(-0.8) <= sigma.min() <= sigma.max() <= np.exp(0.8)


def test_what_was_never_seen_does_not_lead_astray() -> None:
    one, sizes = frame(), unrest.log_size(ERRORS, TYPICAL)
    table = table_of(one, sizes, 4 * DAY, COUNT - 1)
    scale = unrest.fit(table, sizes[4 * DAY : COUNT - 1])
    got = scale.of(np.array([[np.full(table.shape[2], 1e9)], [np.full(table.shape[2], -1e9)]]).reshape(2, 1, -1))
    assert np.isfinite(got).all()
    assert (np.abs(np.log(got)) <= 0.8 + 1e-9).all()


def test_errors_that_are_all_alike_have_one_scale() -> None:
    one, sizes = frame(), unrest.log_size(np.full((COUNT, 1), 0.3), TYPICAL)
    table = table_of(one, sizes, 4 * DAY, COUNT - 1)
    np.testing.assert_allclose(unrest.fit(table, sizes[4 * DAY : COUNT - 1]).of(table), 1.0, atol=1e-6)


def test_an_error_that_is_not_known_counts_as_typical() -> None:
    got = unrest.log_size(np.array([[np.nan], [0.2], [0.0]]), TYPICAL)[:, 0]
    assert got[0] == got[1]
    np.testing.assert_allclose(got[2], np.log(0.02))


def test_a_few_rows_are_averaged_as_many_are() -> None:
    sizes = RANDOM.normal(0.0, 1.0, (60, 3))
    whole = unrest.averages(sizes, None)
    parts, before = [whole[:20]], whole[19]
    for low in range(20, 60, 8):
        parts.append(unrest.averages(sizes[low : low + 8], before))
        before = parts[-1][-1]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-9)


def test_inputs_of_an_origin_know_no_error_after_it() -> None:
    one, lag, low = frame(), 3, 10 * DAY
    sizes = unrest.log_size(ERRORS, TYPICAL)
    other = sizes.copy()
    other[low - lag + 1 :] = 99.0
    np.testing.assert_array_equal(table_of(one, sizes, low, low + 1, lag), table_of(one, other, low, low + 1, lag))
    # Rows of many origins at once are those of each, but for where averages of steps begin.
    many = table_of(one, sizes, low - 5, low + 5, lag)
    np.testing.assert_allclose(many[5:6], table_of(one, sizes, low, low + 1, lag), atol=0.01)
