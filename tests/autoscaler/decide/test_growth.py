"""Demand that grows as the forecast grows, from where it is now."""

from __future__ import annotations

import math

import pytest

from autoscaler.decide.outlook import Outlook
from autoscaler.decide.predictors.growth import Growth


def outlook(*middles: float) -> Outlook:
    horizons = tuple(300.0 * (1 + index) for index in range(len(middles)))
    return Outlook(0.0, horizons, (0.5, 0.9), tuple((middle, 2 * middle) for middle in middles))


@pytest.mark.parametrize(
    ("rate", "middles", "expected"),
    [
        (100.0, (50.0, 60.0), 120.0),  # the forecast is half of what is, and grows by a fifth: so does demand
        (100.0, (50.0, 50.0), 100.0),
        (100.0, (50.0, 40.0), 80.0),
        (100.0, (1.0, 900.0), 200.0),  # more than twice within a start-up is no course of the day
        (100.0, (900.0, 1.0), 50.0),
        (0.0, (5.0, 10.0), 0.0),
    ],
)
def test_the_level_is_of_now_and_the_slope_of_the_forecast(
    rate: float, middles: tuple[float, ...], expected: float
) -> None:
    growth = Growth()
    growth.observe(rate, 300.0)
    found = growth.expect(300.0, 300.0, outlook(*middles))
    assert found is not None
    assert found.level(0.0) == pytest.approx(expected, abs=1e-4)


def test_nothing_is_expected_before_anything_was_seen() -> None:
    assert Growth().expect(0.0, 300.0, outlook(1.0, 2.0)) is None


def test_its_spread_is_learned_from_what_came() -> None:
    calm, wild = Growth(), Growth()
    for tick in range(400):
        now = 15.0 * tick
        for one, rate in ((calm, 100.0), (wild, 100.0 * math.exp(0.3 * math.sin(tick)))):
            one.observe(rate, now)
            one.expect(now, 300.0, Outlook(now, (300.0, 600.0), (0.5,), ((100.0,), (100.0,))))
    known = Outlook(6000.0, (300.0, 600.0), (0.5,), ((100.0,), (100.0,)))
    narrow, wide = calm.expect(6000.0, 300.0, known), wild.expect(6000.0, 300.0, known)
    assert narrow is not None
    assert wide is not None
    assert wide.sigma > 2.0 * narrow.sigma
