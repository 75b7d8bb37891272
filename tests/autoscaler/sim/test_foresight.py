"""The forecaster of production in the plant."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.sim.foresight import Foresight, can_forecast, settings_for
from forecaster.series import Series

HOUR_S = 3600


def daily(days: int, step_s: int = HOUR_S) -> Series:
    bins = np.arange(days * 86_400 // step_s)
    return Series(0, step_s, 100.0 + 50.0 * np.sin(bins * step_s / 86_400 * 2 * np.pi))


def test_a_daily_course_is_foreseen_from_the_bins_that_were_over() -> None:
    series = daily(12)
    foresight = Foresight()
    now = 10 * 86_400 + 2 * HOUR_S
    for at in range(9 * 86_400, now, 6 * HOUR_S):
        foresight(series.before(at), float(at))
    outlook = foresight(series.before(now), float(now))
    assert outlook is not None
    assert outlook.valid()
    # A bin's forecast stands for its middle: the first for half an hour from now.
    assert outlook.horizons_s[0] == HOUR_S / 2
    truth = series.values[now // HOUR_S]
    assert outlook.at(HOUR_S / 2, 0.5, outlook.made_at) == pytest.approx(truth, rel=0.05)


def test_horizons_that_have_passed_are_left_out() -> None:
    series = daily(4)
    foresight = Foresight()
    late = foresight(series, float(series.end_s + 90 * 60))
    assert late is not None
    assert late.horizons_s[0] == pytest.approx(HOUR_S)
    assert not late.trusted
    assert foresight(series, float(series.end_s + 86_400)) is None


@pytest.mark.parametrize(("step_s", "width_s"), [(60, 300), (120, 360), (300, 300), (600, 600), (3600, 3600)])
def test_bins_are_of_five_minutes_or_the_next_width_that_fits(step_s: int, width_s: int) -> None:
    assert can_forecast(step_s)
    assert settings_for(step_s).step_s == width_s


def test_bins_that_do_not_fit_into_a_day_are_not_forecast() -> None:
    assert not can_forecast(420)
