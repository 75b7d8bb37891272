"""Minutes of demand out of counters: resets, clocks that jump, gaps, restarts, and bounds."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.errors import SeriesError
from forecaster.history import BIN_S, Counters, History, Noted, Quantity, Row
from forecaster.series import Floats

T0 = 1_700_000_040
"""A full minute."""
KEY = "llama-3-70b"


class Feed:
    """Counters that rise at a steady rate, and the two clocks."""

    def __init__(self, history: History, wall_s: float = T0, key: str = KEY) -> None:
        self.history = history
        self.key = key
        self.wall_s = wall_s
        self.mono_s = 1000.0
        self.requests = 5000.0
        self.noted = self.read()

    def read(self) -> Noted:
        counters = Counters(self.requests, 100 * self.requests, 7 * self.requests)
        return self.history.observe(self.key, counters, wall_s=self.wall_s, mono_s=self.mono_s)

    def run(self, seconds: float, *, every_s: float = 10.0, per_s: float = 1.0) -> list[Noted]:
        noted = []
        for _ in range(round(seconds / every_s)):
            self.pass_by(every_s, per_s)
            noted.append(self.read())
        return noted

    def pass_by(self, seconds: float, per_s: float = 1.0) -> None:
        self.wall_s += seconds
        self.mono_s += seconds
        self.requests += per_s * seconds

    def values(self, quantity: Quantity = Quantity.REQUESTS, step_s: int = BIN_S) -> Floats:
        return self.history.series(self.key, quantity, now_s=self.wall_s, step_s=step_s).values


def test_readings_become_minutes_of_each_quantity() -> None:
    feed = Feed(History())
    assert feed.noted is Noted.FIRST
    assert set(feed.run(180)) == {Noted.RECORDED}
    series = feed.history.series(KEY, Quantity.REQUESTS, now_s=feed.wall_s)
    assert (series.start_s, series.step_s) == (T0, 60)
    np.testing.assert_allclose(series.values, [60.0, 60.0, 60.0])
    np.testing.assert_allclose(feed.values(Quantity.PROMPT_TOKENS), 6000.0)
    np.testing.assert_allclose(feed.values(Quantity.OUTPUT_TOKENS), 420.0)


def test_the_minute_that_has_not_ended_is_not_demand_yet() -> None:
    feed = Feed(History())
    feed.run(90)
    assert len(feed.values()) == 1


@pytest.mark.parametrize(("late_s", "wanted"), [(20, 60.0), (30, 60.0), (40, math.nan)])
def test_a_minute_of_which_half_was_seen_is_scaled_and_less_is_unknown(late_s: int, wanted: float) -> None:
    feed = Feed(History(), wall_s=T0 + late_s)
    feed.run(120)
    assert feed.values()[0] == pytest.approx(wanted) if not math.isnan(wanted) else feed.values().size == 1


def test_demand_between_two_readings_is_spread_over_the_minutes_between_them() -> None:
    feed = Feed(History())
    feed.run(75, every_s=75, per_s=2.0)
    feed.run(75, every_s=75, per_s=6.0)
    np.testing.assert_allclose(feed.values(), [120.0, 15 * 2 + 45 * 6.0])


def test_i09_silence_is_a_gap_and_never_zero() -> None:
    feed = Feed(History())
    feed.run(120)
    feed.pass_by(600)
    assert feed.read() is Noted.GAP
    feed.run(120)
    np.testing.assert_allclose(feed.values(), [60.0] * 2 + [math.nan] * 10 + [60.0] * 2)


def test_i09_minutes_since_the_last_reading_are_unknown() -> None:
    feed = Feed(History())
    feed.run(120)
    feed.pass_by(180)
    np.testing.assert_allclose(feed.values(), [60.0, 60.0, math.nan, math.nan, math.nan])


def test_a_late_reading_within_a_bin_and_a_half_is_no_gap() -> None:
    feed = Feed(History())
    assert feed.run(180, every_s=90) == [Noted.RECORDED] * 2
    np.testing.assert_allclose(feed.values(), 60.0)


def test_i10_no_demand_is_zero_and_not_unknown() -> None:
    feed = Feed(History())
    feed.run(180, per_s=0.0)
    assert feed.values().tolist() == [0.0, 0.0, 0.0]


def test_i05_a_counter_that_falls_neither_counts_twice_nor_below_zero() -> None:
    feed = Feed(History())
    feed.run(90)
    feed.pass_by(10)
    feed.requests = 3.0
    assert feed.read() is Noted.RESET
    feed.run(80)
    np.testing.assert_allclose(feed.values(), 60.0, err_msg="the ten seconds that nobody knows are scaled over")


def test_i05_a_sum_of_which_one_process_left_is_not_taken_for_a_burst() -> None:
    feed = Feed(History())
    feed.run(60, every_s=60)
    feed.pass_by(60)
    feed.requests -= 2000.0
    assert feed.read() is Noted.RESET
    feed.run(60, every_s=60)
    np.testing.assert_allclose(feed.values(), [60.0, math.nan, 60.0])


def test_h14_a_clock_that_is_set_forward_leaves_a_gap() -> None:
    feed = Feed(History())
    feed.run(120)
    feed.wall_s += 300
    assert feed.run(10) == [Noted.CLOCK_FORWARD]
    feed.run(110)
    np.testing.assert_allclose(feed.values(), [60.0] * 2 + [math.nan] * 5 + [60.0] * 2)


def test_h14_a_clock_that_is_set_back_counts_nothing_twice_and_leaves_nothing_in_the_future() -> None:
    feed = Feed(History())
    feed.run(600)
    feed.wall_s -= 300
    assert feed.run(10) == [Noted.CLOCK_BACK]
    assert all(row.start_s < feed.wall_s for row in feed.history.dump(now_s=1e12))
    feed.run(110)
    np.testing.assert_allclose(feed.values(), 60.0)
    assert len(feed.values()) == 7


@pytest.mark.parametrize("after_s", [115, 125])
@pytest.mark.parametrize("step_s", [-29.0, -5.0, -1.5, 1.5, 29.0])
def test_h14_a_small_correction_of_the_clock_changes_no_rate(after_s: int, step_s: float) -> None:
    """Within a minute, and back into the one before."""
    feed = Feed(History())
    feed.run(after_s, every_s=5)
    feed.wall_s += step_s
    feed.run(180 - step_s, every_s=0.5)
    np.testing.assert_allclose(feed.values(), 60.0)
    assert [row.start_s for row in feed.history.dump(now_s=feed.wall_s)] == [
        T0 + 60 * i for i in range(len(feed.values()))
    ]


def test_h14_a_clock_that_is_wrong_by_a_year_for_a_while_costs_no_history() -> None:
    feed = Feed(History(bins_most=100))
    feed.run(60 * 90, every_s=60)
    feed.wall_s += 366 * 86_400
    feed.run(120, every_s=60)
    feed.wall_s -= 366 * 86_400
    feed.run(180, every_s=60)
    values = feed.values()
    assert len(values) == 95
    assert int(np.isnan(values).sum()) == 2, "the two minutes of the wrong clock"


def test_h16_the_hour_that_local_time_repeats_is_two_hours() -> None:
    """Epoch seconds go on through the night in which Berlin's clocks are set back."""
    feed = Feed(History(), wall_s=datetime(2026, 10, 24, 23, 30, tzinfo=UTC).timestamp())
    feed.run(3 * 3600, every_s=60)
    values = feed.values(step_s=3600)
    np.testing.assert_allclose(values, 3600.0)


def test_a_monotonic_clock_that_starts_anew_starts_a_new_count() -> None:
    feed = Feed(History())
    feed.run(60)
    feed.mono_s = 1.0
    assert feed.read() is Noted.FIRST


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 1e308])
def test_i02_a_reading_that_cannot_be_is_refused_and_forgotten(bad: float) -> None:
    feed = Feed(History())
    feed.run(30)
    now = {"wall_s": feed.wall_s + 5, "mono_s": feed.mono_s + 5}
    assert feed.history.observe(KEY, Counters(bad, 1.0, 1.0), **now) is Noted.REFUSED
    feed.run(30)
    np.testing.assert_allclose(feed.values(), 60.0)
    assert feed.history.observe(KEY, Counters(1.0, 1.0, 1.0), wall_s=bad, mono_s=1e6) is Noted.REFUSED or bad == 1e308
    assert feed.history.observe(KEY, Counters(1.0, 1.0, 1.0), wall_s=1.0, mono_s=math.nan) is Noted.REFUSED


def test_the_same_instant_twice_adds_nothing() -> None:
    feed = Feed(History())
    feed.run(60)
    feed.requests += 1000
    assert feed.read() is Noted.REFUSED


def test_wider_bins_begin_on_their_own_multiples() -> None:
    feed = Feed(History(), wall_s=T0)
    feed.run(1800, every_s=30)
    series = feed.history.series(KEY, Quantity.REQUESTS, now_s=feed.wall_s, step_s=300)
    assert series.start_s % 300 == 0
    assert series.start_s <= T0
    assert series.end_s <= feed.wall_s
    np.testing.assert_allclose(series.values[1:], 300.0)
    with pytest.raises(SeriesError, match="multiple of 60"):
        feed.values(step_s=90)


def test_of_an_unknown_key_the_series_is_empty() -> None:
    assert len(History().series("nobody", Quantity.REQUESTS, now_s=T0)) == 0


def test_a_restart_forgets_no_whole_minute() -> None:
    before = Feed(History())
    before.run(60 * 30 + 40)
    rows = list(before.history.dump(now_s=before.wall_s))
    assert len(rows) == 30
    after = Feed(History(), wall_s=before.wall_s + 10)
    assert after.history.load(rows, now_s=after.wall_s) == 30
    after.run(130)
    np.testing.assert_allclose(after.values(), [60.0] * 30 + [math.nan] + [60.0] * 2)


def test_only_what_is_new_is_dumped_when_asked_for() -> None:
    feed = Feed(History())
    feed.run(600)
    rows = list(feed.history.dump(now_s=feed.wall_s, since_s=T0 + 480))
    assert [row.start_s for row in rows] == [T0 + 480, T0 + 540]
    assert rows[0] == Row(KEY, T0 + 480, 60.0, 6000.0, 420.0)


def test_rows_come_back_in_any_order_and_the_later_of_two_wins() -> None:
    history = History()
    rows = [Row(KEY, T0 + 60 * index, float(index), 0.0, 0.0) for index in (3, 0, 2, 1, 1, 3)]
    rows[-1] = Row(KEY, T0 + 180, 99.0, 0.0, 0.0)
    assert history.load(rows, now_s=T0 + 1000) == 6
    values = history.series(KEY, Quantity.REQUESTS, now_s=T0 + 240).values
    assert values.tolist() == [0.0, 1.0, 2.0, 99.0]


@pytest.mark.parametrize(
    "row",
    [
        Row(KEY, T0 + 1, 1.0, 1.0, 1.0), Row(KEY, T0 + 60_000, 1.0, 1.0, 1.0), Row(KEY, -60, 1.0, 1.0, 1.0),
        Row(KEY, T0, math.nan, 1.0, 1.0), Row(KEY, T0, 1.0, -1.0, 1.0), Row(KEY, T0, 1.0, 1.0, 1e308),
    ],
)  # fmt: skip
def test_i07_rows_in_the_future_and_others_that_cannot_be_are_left_out(row: Row) -> None:
    history = History()
    assert history.load([row, Row("other", T0, 1.0, 1.0, 1.0)], now_s=T0 + 600) == 1
    assert history.keys() == ("other",)


def test_history_is_bounded_in_length_and_in_keys() -> None:
    history = History(bins_most=50, keys_most=3)
    for number in range(5):
        feed = Feed(history, wall_s=T0 + 7200 * number, key=f"model-{number}")
        feed.run(60 * 90, every_s=60)
        assert len(feed.values()) <= 50
        assert np.isfinite(feed.values()[-40:]).all()
    assert history.keys() == ("model-2", "model-3", "model-4")
    history.load([Row("model-4", 60 * index, 1.0, 0.0, 0.0) for index in range(200)], now_s=T0)
    assert sum(row.key == "model-4" for row in history.dump(now_s=1e12)) <= 50


def test_bounds_must_leave_room() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        History(bins_most=0)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 89.0), st.integers(0, 10_000)), min_size=1, max_size=60), st.floats(0, 59.9))
def test_no_request_is_lost_or_counted_twice(steps: list[tuple[float, int]], offset_s: float) -> None:
    """Started on a minute and ended on one, the minutes add up to what the counter rose."""
    feed = Feed(History())
    for seconds, count in steps:
        feed.pass_by(seconds, per_s=0.0)
        feed.requests += count
        assert feed.read() is Noted.RECORDED
    rest_s = -(feed.wall_s - T0) % BIN_S
    feed.pass_by(rest_s + BIN_S / 2, per_s=0.0)
    feed.read()
    feed.pass_by(BIN_S / 2, per_s=0.0)
    feed.read()
    assert float(feed.values().sum()) == pytest.approx(sum(count for _, count in steps), abs=1e-3, rel=1e-6)


event = st.one_of(
    st.tuples(st.just("pass"), st.floats(0.01, 400.0)),
    st.tuples(st.just("clock"), st.floats(-10_000.0, 10_000.0)),
    st.tuples(st.just("reset"), st.floats(0.0, 100.0)),
    st.tuples(st.just("burst"), st.floats(0.0, 1e17)),
    st.tuples(st.just("nonsense"), st.sampled_from([math.nan, math.inf, -5.0, 1e308])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(event, max_size=80))
def test_whatever_happens_the_series_is_sound(events: list[tuple[str, float]]) -> None:
    """Finite or NaN, not negative, on the grid, nothing in the future, and never more than the highest rate read."""
    feed = Feed(History(bins_most=64))
    fastest = 0.0
    for what, amount in events:
        before = (feed.requests, feed.mono_s)
        feed.pass_by(amount if what == "pass" else 5.0, per_s=1.0)
        if what == "clock":
            feed.wall_s = max(0.0, feed.wall_s + amount)
        elif what == "reset":
            feed.requests = amount
        elif what == "burst":
            feed.requests += amount
        elif what == "nonsense":
            feed.history.observe(KEY, Counters(amount, 0.0, 0.0), wall_s=feed.wall_s, mono_s=feed.mono_s)
        if feed.requests <= 1e18:
            feed.read()
            fastest = max(fastest, (feed.requests - before[0]) / (feed.mono_s - before[1]))
        for step_s in (60, 300):
            series = feed.history.series(KEY, Quantity.REQUESTS, now_s=feed.wall_s, step_s=step_s)
            known = series.values[~np.isnan(series.values)]
            assert series.start_s % step_s == 0
            assert series.end_s <= feed.wall_s
            assert len(series) * step_s <= 64 * 60 + 600
            assert (known >= 0.0).all()
            assert (known <= (fastest + 1.0) * step_s * 1.05).all()
    rows = list(feed.history.dump(now_s=feed.wall_s))
    again = History(bins_most=64)
    assert again.load(rows, now_s=feed.wall_s) == len(rows)
    assert list(again.dump(now_s=feed.wall_s)) == rows
