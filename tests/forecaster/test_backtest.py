"""Rolling origin: which instants are scored, what was known at each, and what the numbers mean."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.backtest import DAILY, LAST, SYSTEM, Asked, Backtest, grid_of, run
from forecaster.errors import ForecastError
from forecaster.scoring import conformal, geometric, pinball, score
from forecaster.series import Floats, Series

STEP_S = 3_600
ASKED = Asked(horizons_s=(3_600.0, 7_200.0), quantiles=(0.5, 0.9), stride_s=4 * STEP_S)
LEVELS = np.array([0.5, 0.9])


def hourly(days: float, seed: int = 1) -> Floats:
    """A course of the day with noise."""
    hours = np.arange(int(days * 24))
    noise = np.random.default_rng(seed).lognormal(0.0, 0.1, len(hours))
    return np.asarray((100.0 + 50.0 * np.sin(2 * np.pi * hours / 24)) * noise)


def series_of(values: Floats, step_s: int = STEP_S) -> Series:
    return Series(1_700_006_400, step_s, values)


@pytest.fixture(scope="module")
def result() -> Backtest:
    return run(series_of(hourly(8.0)), ASKED)


@pytest.mark.parametrize(
    ("days", "scored", "before"), [(30, 10, 5), (25, 10, 5), (24, 5, 2), (13, 5, 2), (12, 2.5, 1.5)]
)
def test_the_last_days_are_scored(days: int, scored: float, before: float) -> None:
    grid = grid_of(series_of(hourly(days)), ASKED)
    count = days * 24
    assert grid.origins[0] == count - scored * 24
    assert grid.first == count - (scored + before) * 24
    assert grid.origins[-1] + max(grid.settings.lags) < count
    assert set(np.diff(grid.origins)) == {4}


def test_no_more_than_forty_five_days_are_looked_at() -> None:
    grid = grid_of(series_of(hourly(60.0)), ASKED)
    assert len(grid.series) == 45 * 24
    assert grid.series.end_s == series_of(hourly(60.0)).end_s


@pytest.mark.parametrize(("native_s", "step_s"), [(60, 300), (120, 240), (300, 300), (600, 600), (10, 300)])
def test_bins_are_of_five_minutes_or_the_series_own(native_s: int, step_s: int) -> None:
    values = np.ones(5 * 86_400 // native_s)
    grid = grid_of(Series(0, native_s, values), Asked())
    assert grid.settings.step_s == step_s
    assert grid.series.values[0] == step_s / native_s
    assert grid.settings.lags == tuple(-(-seconds // step_s) for seconds in (300, 900, 1_800, 3_600))


@pytest.mark.parametrize(
    ("values", "asked", "message"),
    [
        (hourly(3.0), ASKED, "spans 3.0 days"),
        (hourly(8.0), Asked(bin_s=5_400), "take a multiple"),
        (hourly(8.0), Asked(stride_s=0), "must be positive"),
        (np.full(8 * 24, np.nan), ASKED, "nothing is known"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(values: Floats, asked: Asked, message: str) -> None:
    with pytest.raises(ForecastError, match=message):
        grid_of(series_of(values), asked)


def test_what_was_told_does_not_depend_on_what_came_later(result: Backtest) -> None:
    cut = int(result.grid.origins[4])
    values = hourly(8.0)
    values[cut + 1 :] = np.random.default_rng(9).permutation(values[cut + 1 :]) * 3.0
    other = run(series_of(values), ASKED)
    assert np.array_equal(other.told[:5], result.told[:5])
    assert not np.array_equal(other.told[5:], result.told[5:])


def test_naive_scores_are_what_their_rule_says(result: Backtest) -> None:
    """Seen from outside: forecasts of yesterday's value with quantiles of its own known errors, in logarithms."""
    grid, values = result.grid, result.grid.series.values
    offset = values[: grid.first].mean() + 1e-9
    z = np.log(values + offset)
    for name, back in ((DAILY, lambda lag: 24 - lag), (LAST, lambda lag: 0)):
        for j, lag in enumerate(grid.settings.lags):
            losses, truths = [], []
            for origin in grid.origins:
                known = np.arange(max(grid.first, origin - lag + 1 - 240), origin - lag + 1)
                errors = z[known + lag] - z[known - back(lag)]
                ranks = np.minimum(1.0, LEVELS * (len(errors) + 1) / len(errors))
                told = np.exp(z[origin - back(lag)] + np.quantile(errors, ranks)) - offset
                losses.append(np.mean(pinball(values[origin + lag] - told, LEVELS)))
                truths.append(values[origin + lag])
            assert result.named(name).loss[j] == pytest.approx(np.mean(losses) / np.mean(truths))


def test_the_system_comes_first_and_learns_the_course_of_the_day(result: Backtest) -> None:
    own = result.scores[0]
    assert own.name == SYSTEM
    assert result.ratio(own) == pytest.approx(geometric(np.array(own.loss) / np.array(result.named(DAILY).loss)))
    assert result.to_better_naive(own) < 1.0
    assert result.ratio(result.named(DAILY)) == pytest.approx(1.0)
    means = [float(np.mean(one.loss)) for one in result.scores[1:]]
    assert means == sorted(means)


def test_every_forecast_is_in_the_dump_with_its_instants(result: Backtest) -> None:
    rows = list(result.rows())
    grid = result.grid
    assert len(rows) == len(grid.origins) * 2 * 2
    first, end = grid.series.start_s, grid.series.start_s + (int(grid.origins[0]) + 1) * STEP_S
    assert rows[0][:3] == (end, end, 0.5)
    assert rows[2][:3] == (end, end + STEP_S, 0.5)
    assert all((origin - first) % STEP_S == 0 and np.isfinite(value) for origin, _, _, value in rows)


def test_lost_telemetry_is_not_scored() -> None:
    values = hourly(8.0)
    values[-30:-20] = np.nan
    holed = run(series_of(values), ASKED)
    assert np.isnan(holed.grid.truth).any()
    assert all(np.isfinite(one.loss).all() for one in holed.scores)


def test_progress_names_parts_and_goes_up() -> None:
    told: list[tuple[str, float]] = []
    run(series_of(hourly(8.0)), ASKED, progress=lambda part, share: told.append((part, share)))
    own = [share for part, share in told if part == SYSTEM]
    assert own == sorted(own)
    assert len({part for part, _ in told}) > 3
    assert all(0.0 <= share < 1.0 for _, share in told)


def test_pinball_prices_both_sides() -> None:
    assert pinball(np.array([[10.0, 10.0], [-10.0, -10.0]]), LEVELS).tolist() == pytest.approx(
        np.array([[5.0, 9.0], [5.0, 1.0]])
    )


def test_coverage_counts_truths_at_or_below() -> None:
    told = np.array([[[1.0, 3.0]], [[2.0, 3.0]], [[4.0, 5.0]], [[0.0, 1.0]]])
    got = score("x", "rule", told, np.array([[2.0], [2.0], [2.0], [np.nan]]), LEVELS)
    assert got.coverage == pytest.approx((2 / 3, 1.0))
    assert got.wape == pytest.approx((0.5,))


def test_conformal_reads_only_errors_that_were_known() -> None:
    generator = np.random.default_rng(3)
    points, errors = generator.normal(size=(60, 2)), generator.normal(size=(60, 2))
    rows = np.array([30, 50])
    before = conformal(points, errors, rows, 3, 24, LEVELS)
    errors[28:] += 100.0
    after = conformal(points, errors, rows, 3, 24, LEVELS)
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])
    assert np.isnan(conformal(points, errors, np.array([10]), 3, 24, LEVELS)).all()
