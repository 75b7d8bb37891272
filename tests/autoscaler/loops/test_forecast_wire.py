"""Messages to and from the process that forecasts, and what the controller reads of a forecast."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.forecast_wire import MOST_BYTES, SIZES, Answer, Ask, Setup, WireError, sizes_of
from autoscaler.loops.forecasting import Rest
from autoscaler.outlooks import aged, nothing, outlook_of, pooled
from forecaster.event_settings import CalendarSettings, EventFields
from forecaster.quantiles import Forecast
from forecaster.series import Series
from forecaster.settings import ForecastSettings
from forecaster.trust import Change

MADE = Forecast(
    900, 300, (200.0, 300.0, 900.0), (0.5, 0.9), ((300.0, 600.0), (300.0, 600.0), (600.0, 900.0)), "stack", "because",
    math.nan, (0.5, math.nan), True, "proven",
)  # fmt: skip
UNKNOWN = np.nan


def parts(message: bytes) -> tuple[bytes, bytes]:
    head, body = sizes_of(message[: SIZES.size])
    rest = message[SIZES.size :]
    assert len(rest) == head + body
    return rest[:head], rest[head:]


def test_messages_arrive_as_they_were_sent() -> None:
    event = EventFields.model_validate({"at": "2026-12-01 UTC", "for": "1h", "demand": "x2", "name": "launch"})
    calendars = (CalendarSettings(file=Path("a.ics"), demand="+20 %"),)
    setup = Setup(ForecastSettings(quantiles=(0.1, 0.6)), (event,), calendars, "/etc", 1 << 30)
    assert Setup.unpack(*parts(setup.pack())) == setup
    ask = Ask("chat", True, 1234.5, Series(600, 300, np.array([1.0, UNKNOWN, 1e300])), ("chat", "other"))
    got = Ask.unpack(*parts(ask.pack()))
    np.testing.assert_array_equal(got.series.values, ask.series.values)
    assert (got.pool, got.begin, got.now_s, got.pools) == (ask.pool, ask.begin, ask.now_s, ask.pools)
    assert (got.series.start_s, got.series.step_s) == (600, 300)
    answer = Answer(MADE, (Change(False, "worse"),), ("a.ics: is not there",), "", 0.5, 1 << 27)
    assert repr(Answer.unpack(*parts(answer.pack()))) == repr(answer), "NaN is not equal to itself"


@pytest.mark.parametrize("head", [b"", b"[]", b"nonsense", b'{"forecast": 1}', b'{"error": 1}', b"\xff"])
def test_what_is_no_answer_is_an_error_and_nothing_else(head: bytes) -> None:
    with pytest.raises(WireError):
        Answer.unpack(head, b"")


@pytest.mark.parametrize("spoiled", [{"values": ()}, {"step_s": 0}])
def test_a_forecast_that_lacks_a_part_is_an_error(spoiled: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="lacks a part"):
        Answer.unpack(*parts(Answer(replace(MADE, **spoiled)).pack()))


def test_a_length_that_cannot_be_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="too long"):
        sizes_of(SIZES.pack(2, MOST_BYTES + 1))


def test_a_forecast_is_read_per_second_on_the_monotonic_clock() -> None:
    outlook = outlook_of(MADE, mono_s=5000.0, wall_s=1000.0)
    assert outlook.made_at == 4900.0, "its data end 100 s before now"
    assert outlook.horizons_s == (150.0, 750.0), "the middle of the bin that ends there; two in one bin are one"
    assert outlook.values == ((1.0, 2.0), (2.0, 3.0))
    assert outlook.valid()
    assert outlook.at(50.0, 0.5, now=5000.0) == 1.0


def test_age_takes_trust_away_and_says_why() -> None:
    outlook = outlook_of(MADE, mono_s=5000.0, wall_s=1000.0)
    assert aged(outlook, 5800.0, 900.0, "") == outlook
    old = aged(outlook, 5801.0, 900.0, "it hangs")
    assert (old.trusted, old.reason, old.values) == (False, "the newest data are 901 s old: it hangs", outlook.values)
    none = nothing("no demand was seen yet", 1.0)
    assert (none.valid(), none.trusted, none.reason) == (False, False, "no demand was seen yet")


def test_models_of_a_pool_are_added_where_all_that_had_begun_are_known() -> None:
    first = np.array([UNKNOWN, 1.0, 1.0, UNKNOWN, 1.0, UNKNOWN, UNKNOWN])
    second = np.array([UNKNOWN, UNKNOWN, 2.0, 2.0, 2.0, 2.0, UNKNOWN])
    never = np.full(7, UNKNOWN)
    np.testing.assert_array_equal(
        pooled([first, second, never]), [UNKNOWN, 1.0, 3.0, UNKNOWN, 3.0, 2.0, UNKNOWN]
    )  # fmt: skip
    assert len(pooled([])) == 0


VALUES = st.one_of(st.just(UNKNOWN), st.floats(0.0, 1e12))


@given(st.lists(st.lists(VALUES, min_size=5, max_size=5), min_size=1, max_size=4))
def test_a_pool_is_known_only_where_a_model_is_and_never_has_less_than_one(models: list[list[float]]) -> None:
    arrays = [np.array(one) for one in models]
    total = pooled(arrays)
    known = np.isfinite(arrays).any(0)
    assert not np.isfinite(total[~known]).any()
    for one in arrays:
        both = np.isfinite(total) & np.isfinite(one)
        assert (total[both] >= one[both]).all()


def test_rests_double_until_something_works() -> None:
    rest = Rest(5.0, 30.0)
    assert rest.left_s(0.0) == 0.0
    assert [rest.fail(100.0) for _ in range(5)] == [5.0, 10.0, 20.0, 30.0, 30.0]
    assert (rest.left_s(110.0), rest.left_s(130.0)) == (20.0, 0.0)
    rest.end()
    assert rest.fail(200.0) == 5.0
