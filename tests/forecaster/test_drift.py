"""Level shifts in one-step errors."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.drift import Drift


def bins_until(errors: list[float]) -> tuple[int, str] | None:
    drift = Drift()
    for index, error in enumerate(errors):
        if (way := drift.observe(error)) is not None:
            return index + 1, way
    return None


@pytest.mark.parametrize(("error", "way"), [(5.0, "up"), (-5.0, "down")])
def test_a_shift_is_seen_within_half_an_hour_of_five_minute_bins(error: float, way: str) -> None:
    found = bins_until([0.0] * 20 + [error] * 10)
    assert found is not None
    assert found[1] == way
    assert 20 < found[0] <= 26


def test_one_spike_is_no_shift_however_high() -> None:
    assert bins_until([0.0, 1e300, 0.0, 0.0] * 20) is None


def test_ordinary_errors_are_no_shift() -> None:
    # About normal, in units of the median |error|, for a month of five-minute bins.
    errors = np.random.default_rng(0).normal(0.0, 1.0, 8_640).tolist()
    assert bins_until(errors) is None


def test_a_small_bias_that_stays_is_seen_in_time() -> None:
    found = bins_until([2.0] * 60)
    assert found is not None
    assert found == (25, "up")


def test_after_an_alarm_it_starts_anew() -> None:
    drift = Drift()
    ways = [drift.observe(5.0) for _ in range(8)]
    assert [index for index, way in enumerate(ways) if way] == [3, 7]
