"""Classic models: each says what its name says, from the past alone, whatever else is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from forecaster.classics import CLASSICS
from forecaster.exponential import Smoothing, ahead, run
from forecaster.frame import Frame
from forecaster.refits import daily
from forecaster.series import Floats

DAY = 48
LAGS = (1, 3)
SEASONAL = ["Holt-Winters", "STL + ETS", "Fourier + AR", "seasonal dummies + AR"]


def frame_of(demand: Floats) -> Frame:
    frame = Frame(DAY, 100.0)
    frame.extend(demand)
    return frame


def demand(days: int, noise: float = 0.02) -> Floats:
    at = np.arange(days * DAY)
    course = 100.0 + 60.0 * np.sin(2 * np.pi * at / DAY)
    return np.asarray(course * np.random.default_rng(2).lognormal(0.0, noise, len(at)))


@pytest.mark.parametrize("name", CLASSICS)
def test_points_have_the_shape_of_the_contract_and_are_finite(name: str) -> None:
    model, frame = CLASSICS[name], frame_of(demand(6))
    for low, high in ((0, 5), (2 * DAY - 3, 5 * DAY)):
        points = model.points(frame, LAGS, low, high)
        assert points.shape == (high - low, len(LAGS), len(model.names))
        assert np.isfinite(points).all()


@pytest.mark.parametrize("name", CLASSICS)
def test_the_future_is_not_read(name: str) -> None:
    model, calm = CLASSICS[name], demand(6)
    origin = 5 * DAY + 7
    wild = calm.copy()
    wild[origin + 1 :] = 1e6
    low = origin - 20
    one, other = (model.points(frame_of(values), LAGS, low, origin + 1) for values in (calm, wild))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("name", CLASSICS)
def test_an_origin_gets_the_same_forecast_however_many_are_asked_for(name: str) -> None:
    model, frame = CLASSICS[name], frame_of(demand(6))
    whole = model.points(frame, LAGS, 4 * DAY - 5, 6 * DAY)
    part = model.points(frame, LAGS, 5 * DAY + 3, 5 * DAY + 9)
    np.testing.assert_allclose(whole[DAY + 8 : DAY + 14], part, rtol=1e-6)


@pytest.mark.parametrize("name", SEASONAL)
def test_seasonal_models_know_the_course_of_the_day(name: str) -> None:
    frame = frame_of(demand(10))
    low, high, lag = 7 * DAY, 10 * DAY - 12, 12
    points = CLASSICS[name].points(frame, (lag,), low, high)[:, 0, 0]
    truth = frame.z[low + lag : high + lag]
    # Without a season, the quarter of a day ahead is far off.
    assert np.abs(points - truth).mean() < 0.25 * np.abs(frame.z[low:high] - truth).mean()


@pytest.mark.parametrize("name", SEASONAL)
def test_before_there_are_days_it_is_the_last_value(name: str) -> None:
    frame = frame_of(demand(2))
    points = CLASSICS[name].points(frame, LAGS, 10, 30)
    assert np.array_equal(points[:, 0, 0], frame.z[10:30])


@pytest.mark.parametrize("name", CLASSICS)
@pytest.mark.parametrize("values", [np.zeros(5 * DAY), np.full(5 * DAY, 7.0), np.full(5 * DAY, np.nan)])
def test_a_series_without_any_change_is_no_trouble(name: str, values: Floats) -> None:
    frame = frame_of(values)
    points = CLASSICS[name].points(frame, LAGS, 4 * DAY, 5 * DAY)
    np.testing.assert_allclose(points, frame.z[-1], atol=1e-3)


def test_moving_averages_are_means() -> None:
    frame = frame_of(demand(3))
    points = CLASSICS["moving average"].points(frame, (1,), 100, 101)[0, 0]
    assert points == pytest.approx([frame.z[100], frame.z[99:101].mean(), frame.z[95:101].mean()])


def test_the_recursion_is_that_of_the_library() -> None:
    z = frame_of(demand(4)).z
    fit = ExponentialSmoothing(
        z, trend="add", damped_trend=True, seasonal="add", seasonal_periods=DAY, initialization_method="heuristic"
    ).fit(smoothing_level=0.4, smoothing_trend=0.1, smoothing_seasonal=0.2, damping_trend=0.9, optimized=False)
    found = fit.params
    smoothing = Smoothing(
        0.4, 0.1, 0.2, 0.9, found["initial_level"], found["initial_trend"], np.asarray(found["initial_seasons"])[:DAY]
    )
    points = ahead(run(z, smoothing), 0.9, np.array([len(z) - 1]), (1, 2, 3, 20))[0]
    np.testing.assert_allclose(points, fit.forecast(20)[[0, 1, 2, 19]], rtol=1e-9)


def test_fits_end_at_whole_days_and_never_after_the_origin() -> None:
    pieces = list(daily(48, 40, 20 * 48 + 5))
    assert pieces[0] == (0, 0, 40, 48)
    assert pieces[1] == (0, 48, 48, 96)
    assert pieces[-1] == (6 * 48, 20 * 48, 20 * 48, 20 * 48 + 5)
    assert all(end <= low < high for _, end, low, high in pieces)
