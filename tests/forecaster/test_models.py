"""Every rule: what it says, and that it reads nothing after its origin."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.frame import Frame
from forecaster.models import MODELS, RULES, points
from forecaster.series import Floats

DAY = 48
LAGS = (1, 2, 7, 30)


def frame_of(demand: Floats, day: int = DAY) -> Frame:
    frame = Frame(day, 100.0)
    frame.extend(demand)
    return frame


def wavy(count: int, seed: int = 0) -> Floats:
    noise = np.random.default_rng(seed).gamma(5.0, 0.2, count)
    return np.asarray(100.0 * (1.2 + np.sin(2 * np.pi * np.arange(count) / DAY)) * noise)


def ruled(frame: Frame, low: int, high: int, name: str, lags: tuple[int, ...] = LAGS) -> Floats:
    return points(frame, lags, low, high)[:, :, RULES.index(name)]


def test_rules_have_names_of_their_own() -> None:
    assert len(set(RULES)) == len(RULES)
    assert points(frame_of(wavy(100)), LAGS, 90, 100).shape == (10, len(LAGS), len(RULES))


@pytest.mark.parametrize("name", ["level", "trend", "profile", "seasonal"])
@pytest.mark.parametrize("origin", [0, 1, 30, DAY, 3 * DAY + 5, 9 * DAY])
def test_what_comes_after_an_origin_does_not_matter_to_it(name: str, origin: int) -> None:
    truth = wavy(11 * DAY)
    other = np.concatenate([truth[: origin + 1], 1e5 * np.random.default_rng(9).random(len(truth) - origin - 1)])
    one, two = frame_of(truth), frame_of(other)
    low = max(0, origin - 3)
    got = [MODELS[name].points(frame, LAGS, low, len(truth))[: origin + 1 - low] for frame in (one, two)]
    np.testing.assert_array_equal(got[0], got[1])
    short = frame_of(truth[: origin + 1])
    np.testing.assert_allclose(MODELS[name].points(short, LAGS, low, origin + 1), got[0], rtol=1e-9)


def test_every_model_has_a_case_above() -> None:
    assert set(MODELS) == {"level", "trend", "profile", "seasonal"}


@pytest.mark.parametrize("block", [1, 7, DAY])
def test_the_size_of_blocks_does_not_matter(block: int) -> None:
    frame = frame_of(wavy(9 * DAY))
    low = 8 * DAY
    whole = points(frame, LAGS, low, len(frame))
    parts = [points(frame, LAGS, at, min(at + block, len(frame))) for at in range(low, len(frame), block)]
    # Averages begin a bounded number of bins back, where their weight has faded.
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-3)


def test_with_one_bin_every_rule_says_it() -> None:
    frame = frame_of(np.array([42.0]))
    np.testing.assert_allclose(points(frame, LAGS, 0, 1), frame.z[0])


def test_of_constant_demand_every_rule_says_the_constant() -> None:
    frame = frame_of(np.full(10 * DAY, 7.0))
    np.testing.assert_allclose(points(frame, LAGS, 0, len(frame)), frame.z[0], rtol=1e-9)


def test_of_a_strict_day_seasonal_rules_know_the_future() -> None:
    demand = np.tile(np.linspace(0.0, 500.0, DAY), 10)
    frame = frame_of(demand)
    low, high = 8 * DAY, 9 * DAY
    ahead = frame.z[np.arange(low, high)[:, None] + np.array(LAGS)]
    for name in ("seasonal naive day", "seasonal naive week", "median 3 days", "median 7 days"):
        np.testing.assert_allclose(ruled(frame, low, high, name), ahead)


def test_the_median_of_a_week_is_not_moved_by_one_odd_day() -> None:
    days = [np.linspace(0.0, 500.0, DAY)] * 8
    days[6] = np.full(DAY, 1e5)
    frame = frame_of(np.concatenate(days))
    low = 7 * DAY
    ahead = frame.z[np.arange(low, low + 10)[:, None] + np.array(LAGS)]
    np.testing.assert_allclose(ruled(frame, low, low + 10, "median 7 days"), ahead)
    assert np.abs(ruled(frame, low, low + 10, "seasonal naive day") - ahead).min() > 3.0


def test_half_of_the_gap_to_yesterday_is_added() -> None:
    frame = frame_of(np.concatenate([np.full(DAY, 100.0), np.full(DAY, 300.0)]))
    got = ruled(frame, 2 * DAY - 10, 2 * DAY - 9, "seasonal naive day + half gap", (1,))
    np.testing.assert_allclose(got, 0.5 * (frame.z[0] + frame.z[-1]))


def test_a_trend_goes_on_and_fades() -> None:
    frame = frame_of(np.exp(0.05 * np.arange(80.0)) * 100.0)
    got = ruled(frame, 79, 80, "damped trend 0.6", (1, 5, 40))[0] - frame.z[-1]
    assert 0.01 < got[0] < got[1] < got[2] < 0.5
    assert (got[2] - got[1]) / 35 < 0.5 * (got[1] - got[0]) / 4


def test_levels_follow_at_their_pace() -> None:
    frame = frame_of(np.concatenate([np.full(60, 100.0), np.full(3, 1000.0)]))
    last, quick, calm = (
        float(ruled(frame, 62, 63, name, (1,))[0, 0]) for name in ("last value", "level 0.5", "level 0.1")
    )
    assert frame.z[0] < calm < quick < last == frame.z[-1]


def test_the_profile_moves_the_usual_day_to_todays_level() -> None:
    course = np.exp(np.sin(2 * np.pi * np.arange(DAY) / DAY))
    frame = Frame(DAY, 1e-6)
    frame.extend(np.concatenate([100.0 * np.tile(course, 8), 200.0 * course]))
    low = 8 * DAY + DAY // 2
    truth = frame.z[np.arange(low, low + 10) + 4]
    profile = ruled(frame, low, low + 10, "profile 7d 15min 0.4", (4,))[:, 0]
    naive = ruled(frame, low, low + 10, "seasonal naive day", (4,))[:, 0]
    assert np.abs(profile - truth).max() < 0.15
    assert np.abs(naive - truth).min() > 0.6


@pytest.mark.parametrize("day", [1, 2, 4])
def test_days_of_few_bins_work(day: int) -> None:
    assert np.isfinite(points(frame_of(wavy(60), day), (1,), 0, 60)).all()
