"""A series out of text: what is read, what is repaired, and what is refused with its line."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.errors import SeriesError
from forecaster.readings import read_series
from forecaster.series import Series

START_S = 1_700_000_040
"""Some full minute."""


def read(*rows: str) -> Series:
    return read_series(["timestamp,value", *rows])


def known(series: Series) -> dict[int, float]:
    """Value by start of bin, without what is not known."""
    return {
        series.start_s + index * series.step_s: float(value)
        for index, value in enumerate(series.values)
        if not math.isnan(value)
    }


@pytest.mark.parametrize(
    "stamp",
    [
        "1700000040", "1700000040.0", "2023-11-14T22:14:00", "2023-11-14 22:14:00", "2023-11-14T22:14:00Z",
        "2023-11-14T22:14", "2023-11-14T22:14:00.000", "2023-11-14T23:14:00+01:00", "2023-11-14T17:14:00-0500",
        "20231114T221400Z", '"2023-11-14T22:14:00"',
    ],
)  # fmt: skip
def test_every_way_to_write_an_instant_gives_the_same_bin(stamp: str) -> None:
    series = read(f"{stamp},7.5")
    assert known(series) == {START_S: 7.5}
    assert series.step_s == 60


def test_ways_to_write_an_instant_may_change_within_a_file() -> None:
    series = read("2023-11-14T22:14:00,1", "2023-11-14T23:15:00+01:00,2", "1700000160,3", " 2023-11-14T22:17:00Z , 4 ")
    assert series.values.tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "top", [[], ["timestamp,value"], ["\ufeffTime,Requests\r\n"], ["", "\n", "ts,value,unit"], ["\ufeff"]]
)
def test_a_header_may_be_missing_or_called_otherwise_or_follow_empty_lines(top: list[str]) -> None:
    series = read_series([*top, "0,1\r\n", "60,2,tokens\r\n", "\r\n", "120,\n", "180,4"])
    assert series.step_s == 60
    np.testing.assert_array_equal(series.values, [1.0, 2.0, np.nan, 4.0])


def test_i09_an_empty_value_and_a_missing_row_are_both_gaps_and_not_zeros() -> None:
    series = read("0,1", "60,", "120,3", "300,6")
    np.testing.assert_array_equal(series.values, [1.0, np.nan, 3.0, np.nan, np.nan, 6.0])


def test_i09_with_a_third_of_the_rows_lost_the_step_is_still_found() -> None:
    rng = random.Random(9)
    kept = {START_S + 300 * index: float(index) for index in range(400) if index in (0, 399) or rng.random() > 0.33}
    series = read(*(f"{at},{value}" for at, value in kept.items()))
    assert series.step_s == 300
    assert len(series) == 400
    assert known(series) == kept


def test_i09_readings_at_irregular_times_are_taken_to_a_regular_grid() -> None:
    rng = random.Random(3)
    series = read(*(f"{START_S + 60 * index + rng.uniform(-9, 9):.2f},{index}" for index in range(500)))
    assert series.step_s == 60
    # The grid's phase is one of the jittered ones, so that a reading may be taken to the bin beside its own.
    assert abs(series.start_s - START_S) <= 60
    assert np.isnan(series.values).mean() < 0.3
    assert np.nanmax(np.abs(np.diff(series.values))) <= 3, "the order is kept and nothing is far from its place"


def test_readings_of_one_bin_at_different_times_give_their_mean() -> None:
    rows = [f"{60 * index},10" for index in range(20)]
    series = read(*rows, "610,40")
    assert series.step_s == 60
    assert series.values[10] == 25.0


def test_a_time_that_comes_twice_holds_the_later_line() -> None:
    assert read("0,1", "60,2", "60,5", "120,3").values.tolist() == [1.0, 5.0, 3.0]


@pytest.mark.parametrize("rows", [("0,1", "60,", "60,5", "120,3"), ("0,1", "60,5", "60,", "120,3")])
def test_an_empty_value_does_not_erase_a_known_one(rows: tuple[str, ...]) -> None:
    assert read(*rows).values.tolist() == [1.0, 5.0, 3.0]


def test_rows_out_of_order_are_sorted() -> None:
    rows = [f"{START_S + 60 * index},{index}" for index in range(200)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert read(*shuffled).values.tolist() == read(*rows).values.tolist() == list(range(200))


def test_h16_an_hour_of_local_time_that_comes_twice_is_two_hours() -> None:
    """Berlin, 2026-10-25: 02:00 to 03:00 comes in summer time and again in winter time."""
    first = datetime(2026, 10, 24, 22, tzinfo=UTC)
    rows = []
    for index in range(6 * 12):
        at = first + timedelta(minutes=5 * index)
        offset = 2 if at < datetime(2026, 10, 25, 1, tzinfo=UTC) else 1
        rows.append(f"{at.astimezone(timezone(timedelta(hours=offset))).isoformat()},{index}")
    assert rows[26][:16] == rows[38][:16] == "2026-10-25T02:10"
    series = read(*rows)
    assert series.start_s == int(first.timestamp())
    assert series.values.tolist() == list(range(72))


@pytest.mark.parametrize("value", ["1e308", "1.7976931348623157e308", "5e-324", "0"])
def test_i02_the_largest_and_smallest_numbers_are_read(value: str) -> None:
    series = read(f"0,{value}", f"60,{value}", f"61,{value}", *(f"{60 * index},1" for index in range(2, 10)))
    assert series.values[0] == float(value)
    assert series.values[1] == pytest.approx(float(value)), "a mean of two that cannot be added up"


def test_i10_one_row_and_two_rows_are_a_series() -> None:
    assert (len(read("60,3")), read("60,3").step_s) == (1, 60)
    assert (len(read("60,3", "960,4")), read("60,3", "960,4").step_s) == (2, 900)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("60,-1", "line 3: value '-1' is negative"),
        ("60,NaN", "line 3: value 'NaN' is not finite; leave it empty"),
        ("60,inf", "line 3: value 'inf' is not finite"),
        ("60,1e309", "line 3: value '1e309' is not finite"),
        ("60,null", "line 3: value 'null' is not a number"),
        ("60;5", "line 3: expected timestamp,value, not '60;5'"),
        ("noon,5", "line 3: 'noon' is neither epoch seconds nor ISO 8601"),
        ("2026-13-01T00:00:00,5", "line 3: '2026-13-01T00:00:00' is neither"),
        ("nan,5", "line 3: 'nan' is neither"),
        ("-60,5", "line 3: time '-60' is before 1970"),
        ("1700000000000,5", "seconds, not milliseconds"),
        (",5", "line 3: '' is neither"),
        ("9" * 5000 + ",5", "line 3: "),
        ("60,\x00", "line 3: value"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(row: str, says: str) -> None:
    with pytest.raises(SeriesError) as caught:
        read("0,1", row, "120,1")
    assert says in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "header", ["value,timestamp", "timestamp", "timestamp;value", "<html>", "noon,5", "{", "PK\x03\x04"]
)
def test_a_header_that_names_something_else_is_refused(header: str) -> None:
    with pytest.raises(SeriesError, match="line 1: expected the header timestamp,value or a first row"):
        read_series([header, "0,1", "60,2"])


@pytest.mark.parametrize("lines", [[], ["timestamp,value\n"], ["", "\n"], ["\ufeff"]])
def test_a_file_without_rows_is_refused(lines: list[str]) -> None:
    with pytest.raises(SeriesError, match="no rows"):
        read_series(lines)


def test_all_that_is_wrong_is_told_at_once_up_to_twenty_lines() -> None:
    rows = [f"{60 * index},{'x' if index % 2 else index}" for index in range(100)]
    with pytest.raises(SeriesError) as caught:
        read(*rows)
    told = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in told[:20]] == [f"line {3 + 2 * index}" for index in range(20)]
    assert told[20:] == ["and 30 more lines like these"]


def test_lines_are_numbered_from_the_top_in_a_long_file() -> None:
    lines = ["timestamp,value", *(f"{60 * index},1" for index in range(70_000))]
    lines[69_000] = "oops"
    with pytest.raises(SeriesError, match=r"^line 69001: expected timestamp,value, not 'oops'$"):
        read_series(lines)


def test_one_time_that_is_far_away_does_not_fill_the_memory() -> None:
    with pytest.raises(SeriesError, match=r"2023-11-14T22:15:00.* and 3000-01-01T00:00:00"):
        read("1700000040,1", "1700000100,1", "3000-01-01T00:00:00Z,5", "3000-01-01T00:01:00Z,5")


def test_readings_several_times_a_second_are_refused_and_not_thrown_away() -> None:
    with pytest.raises(SeriesError, match="add the values up"):
        read(*(f"{START_S + index / 10},1" for index in range(100)))


rows_of_a_grid = st.dictionaries(
    st.integers(0, 300), st.none() | st.floats(0, 1.7e308) | st.integers(0, 10**6), min_size=1, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(rows_of_a_grid, st.sampled_from([1, 60, 300, 86_400]), st.integers(0, 10**9), st.randoms())
def test_whatever_the_rows_every_known_value_is_found_at_its_own_time(
    rows: dict[int, float | None], step_s: int, start_s: int, rng: random.Random
) -> None:
    lines = [f"{start_s + index * step_s},{'' if value is None else repr(value)}" for index, value in rows.items()]
    rng.shuffle(lines)
    series = read_series(lines)
    wanted = {start_s + index * step_s: float(value) for index, value in rows.items() if value is not None}
    found = known(series)
    if all((at - series.start_s) % series.step_s == 0 for at in wanted):
        assert found == wanted
    # Gaps of many sizes leave the step open; then readings may share a bin, and none is lost or invented.
    assert len(found) <= len(wanted)
    assert bool(found) == bool(wanted)
    if wanted:
        assert (
            min(wanted.values()) * 0.999 <= min(found.values()) <= max(found.values()) <= max(wanted.values()) * 1.001
        )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=30) | st.from_regex(r"[0-9]{1,10},[0-9.e+-]{0,8}", fullmatch=True), max_size=30))
def test_whatever_the_text_the_answer_is_a_series_or_a_line(lines: list[str]) -> None:
    try:
        series = read_series(lines)
    except SeriesError as refused:
        series, told = None, str(refused)
    assert len(series) >= 1 if series else told.startswith(("line ", "no rows", "times "))
