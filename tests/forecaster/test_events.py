"""Known events as people write them, and what they do to a bin."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.errors import EventError
from forecaster.events import Event, event_of, factor, factors, instant_s, ratios_of, span_s

HOUR = 3600.0
LAUNCH = Event(10 * HOUR, 13 * HOUR, 1.4, 2.2, "launch")


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_an_event_as_a_policy_writes_it() -> None:
    event = event_of("2026-12-01 09:00 Europe/Berlin for 3h, +40..120 %")
    assert event.start_s == utc("2026-12-01T08:00:00")
    assert event.end_s - event.start_s == 3 * HOUR
    assert (event.low_ratio, event.high_ratio) == pytest.approx((1.4, 2.2))
    assert event.name == ""


def test_an_event_may_have_a_name_with_commas() -> None:
    event = event_of("  2026-12-24 UTC for 2d, -50..-20 %, holidays, the whole office ")
    assert event == Event(utc("2026-12-24"), utc("2026-12-26"), 0.5, 0.8, "holidays, the whole office")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-07-01 09:00 Europe/Berlin", "2026-07-01T07:00:00"),
        ("2026-12-01 09:00 Europe/Berlin", "2026-12-01T08:00:00"),
        ("2026-12-01T09:00:30Z", "2026-12-01T09:00:30"),
        ("2026-12-01 09:00 utc", "2026-12-01T09:00:00"),
        ("2026-12-01 09:00 +05:30", "2026-12-01T03:30:00"),
        ("2026-12-01T09:00-0800", "2026-12-01T17:00:00"),
        ("2026-12-01 America/New_York", "2026-12-01T05:00:00"),
        ("2026-10-25 02:30 Europe/Berlin", "2026-10-25T00:30:00"),
    ],
)
def test_h16_an_instant_is_where_its_zone_puts_it(text: str, wanted: str) -> None:
    """The last one comes twice: the first is meant."""
    assert instant_s(text) == utc(wanted)


def test_h16_an_event_over_the_night_of_the_clocks_lasts_as_long_as_it_says() -> None:
    event = event_of("2026-10-24 22:00 Europe/Berlin for 12h, +10 %")
    assert event.end_s == utc("2026-10-25T08:00:00")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("+40..120 %", (1.4, 2.2)), ("+40%..120%", (1.4, 2.2)), ("+40..+120%", (1.4, 2.2)), ("+40 %", (1.4, 1.4)),
        ("-50 %", (0.5, 0.5)), ("−50 %", (0.5, 0.5)), ("-10..+20 %", (0.9, 1.2)), ("-20..-50 %", (0.5, 0.8)),
        ("+12.5…25 %", (1.125, 1.25)),
        ("x2", (2.0, 2.0)), ("x 1.5..3", (1.5, 3.0)), ("X2..x3", (2.0, 3.0)), ("-100 %", (0.0, 0.0)),
    ],
)  # fmt: skip
def test_changes_of_demand(text: str, wanted: tuple[float, float]) -> None:
    assert ratios_of(text) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90m", 5400), ("1h30m", 5400), ("1h 30min", 5400), ("2d", 172_800), ("1w", 604_800), ("0.5h", 1800), ("45s", 45)],
)
def test_spans(text: str, wanted: float) -> None:
    assert span_s(text) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not an event; write"),
        ("2026-12-01 09:00 Europe/Berlin for 3h", "is not an event; write"),
        ("x" * 10_000, "is not an event"),
        ("2026-12-01 09:00 for 3h, +40 %", "names no time zone; write 2026-12-01 09:00 UTC"),
        ("2026-13-01 09:00 UTC for 3h, +40 %", "'2026-13-01 09:00 UTC' is not an instant"),
        ("2026-12-01 25:00 UTC for 3h, +40 %", "is not an instant"),
        ("tomorrow for 3h, +40 %", "'tomorrow' is not an instant"),
        ("2026-12-01 09:00 Europe/Atlantis for 3h, +40 %", "'Europe/Atlantis' is not a time zone"),
        ("2026-12-01 09:00 ../../etc/passwd for 3h, +40 %", "is not a time zone"),
        ("2026-12-01 09:00 +99:00 for 3h, +40 %", "'+99:00' is not a time zone"),
        ("2026-03-29 02:30 Europe/Berlin for 3h, +40 %", "clocks of Europe/Berlin skip this time"),
        ("2026-12-01 09:00 UTC for a while, +40 %", "'a while' is not how long an event lasts"),
        ("2026-12-01 09:00 UTC for 0h, +40 %", "'0h' is not how long"),
        ("2026-12-01 09:00 UTC for 9999d, +40 %", "up to 366 days"),
        ("2026-12-01 09:00 UTC for 3h, 40 %", "'40 %' is not a change of demand; write +40..120 %"),
        ("2026-12-01 09:00 UTC for 3h, more", "'more' is not a change of demand"),
        ("2026-12-01 09:00 UTC for 3h, -20..30 %", "the second number needs its sign"),
        ("2026-12-01 09:00 UTC for 3h, -120 %", "cannot fall by more than 100 %"),
        ("2026-12-01 09:00 UTC for 3h, x100000", "grow to over 1000 times"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_event_is_said(text: str, says: str) -> None:
    with pytest.raises(EventError) as caught:
        event_of(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        (10.0, 10.0, 1.0, 1.0),
        (10.0, 5.0, 1.0, 1.0),
        (0.0, 1.0, 2.0, 1.0),
        (0.0, 1.0, -0.1, 1.0),
        (0.0, float("nan"), 1.0, 1.0),
        (0.0, 1.0, 1.0, float("nan")),
    ],
)
def test_an_event_that_cannot_be_is_not_made(fields: tuple[float, float, float, float]) -> None:
    with pytest.raises(EventError, match="event 'sale': "):
        Event(*fields, name="sale")


@pytest.mark.parametrize(
    ("start_h", "end_h", "wanted"),
    [
        (9, 10, (1.0, 1.0)), (10, 11, (1.4, 2.2)), (12, 13, (1.4, 2.2)), (13, 14, (1.0, 1.0)),
        (9.5, 10.5, (1.2, 1.6)), (12.75, 13.75, (1.1, 1.3)), (9, 14, (1 + 0.6 * 0.4, 1 + 0.6 * 1.2)),
    ],
)  # fmt: skip
def test_an_event_changes_the_bins_that_it_covers_by_the_part_it_covers(
    start_h: float, end_h: float, wanted: tuple[float, float]
) -> None:
    assert factor([LAUNCH], start_h * HOUR, end_h * HOUR) == pytest.approx(wanted)


def test_without_events_nothing_changes() -> None:
    assert factor([], 0.0, 60.0) == (1.0, 1.0)


def test_events_that_overlap_multiply() -> None:
    holiday = Event(0.0, 24 * HOUR, 0.5, 0.8)
    assert factor([LAUNCH, holiday], 11 * HOUR, 12 * HOUR) == pytest.approx((1.4 * 0.5, 2.2 * 0.8))
    assert factor([holiday, LAUNCH], 11 * HOUR, 12 * HOUR) == pytest.approx((1.4 * 0.5, 2.2 * 0.8))


some_event = st.builds(
    lambda start, span, one, two: Event(start, start + span, min(one, two), max(one, two)),
    st.floats(-5000, 5000), st.floats(1, 8000), st.floats(0, 10), st.floats(0, 10),
)  # fmt: skip


@given(st.lists(some_event, max_size=5), st.integers(-5000, 5000), st.integers(1, 1000), st.integers(0, 30))
def test_a_grid_of_bins_says_the_same_as_each_bin(events: list[Event], start_s: int, step_s: int, count: int) -> None:
    low, high = factors(events, start_s, step_s, count)
    one_by_one = [factor(events, start_s + step_s * i, start_s + step_s * (i + 1)) for i in range(count)]
    np.testing.assert_allclose(low, [pair[0] for pair in one_by_one], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(high, [pair[1] for pair in one_by_one], rtol=1e-9, atol=1e-12)
    assert (low <= high + 1e-12).all()


@given(
    st.text(max_size=60)
    | st.from_regex(r"20\d\d-\d\d-\d\d \d\d:\d\d \w+ for \d+[hdm], [+-]\d+(\.\.\d+)? %", fullmatch=True)
)
def test_whatever_is_written_it_is_an_event_or_an_explanation(text: str) -> None:
    try:
        event = event_of(text)
    except EventError:
        return
    assert event.end_s > event.start_s
