"""Calendar files: repetition, zones, exceptions, and entries that nobody can read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.errors import EventError
from forecaster.ics import Known, read_calendar

USUAL = (1.4, 2.2)
BERLIN_9 = "DTSTART;TZID=Europe/Berlin:20261201T090000"


def calendar(*entries: str, top: str = "") -> str:
    body = "".join(f"BEGIN:VEVENT\n{entry}\nEND:VEVENT\n" for entry in entries)
    return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//test//EN\n{top}{body}END:VCALENDAR\n".replace("\n", "\r\n")


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def known(
    text: str, since: str = "2026-11-01", until: str = "2027-02-01", usual: tuple[float, float] | None = USUAL
) -> Known:
    return read_calendar(text, since_s=utc(since), until_s=utc(until), usual=usual)


def starts(text: str, since: str = "2026-11-01", until: str = "2027-02-01") -> list[str]:
    found = known(text, since, until)
    assert found.problems == ()
    return [datetime.fromtimestamp(event.start_s, UTC).strftime("%m-%d %H:%M") for event in found.events]


def test_an_entry_with_an_end_and_one_with_a_duration() -> None:
    one = f"{BERLIN_9}\nDTEND;TZID=Europe/Berlin:20261201T120000\nSUMMARY:Launch\\, at last"
    two = "DTSTART:20261202T090000Z\nDURATION:PT90M"
    found = known(calendar(two, one))
    first, second = found.events
    assert (first.start_s, first.end_s) == (utc("2026-12-01T08:00:00"), utc("2026-12-01T11:00:00"))
    assert (first.low_ratio, first.high_ratio, first.name) == (1.4, 2.2, "Launch, at last")
    assert (second.start_s, second.end_s) == (utc("2026-12-02T09:00:00"), utc("2026-12-02T10:30:00"))


def test_an_entry_without_a_time_is_a_day_on_the_wall_of_the_calendar() -> None:
    top = "X-WR-TIMEZONE:America/New_York\n"
    (event,) = known(calendar("DTSTART;VALUE=DATE:20261224\nSUMMARY:Eve", top=top)).events
    assert (event.start_s, event.end_s) == (utc("2026-12-24T05:00:00"), utc("2026-12-25T05:00:00"))


def test_times_without_zone_are_of_the_zone_that_was_given() -> None:
    text = calendar("DTSTART:20261224T090000\nDURATION:PT1H")
    found = read_calendar(text, since_s=0, until_s=utc("2030-01-01"), usual=USUAL, zone="Asia/Tokyo")
    assert found.events[0].start_s == utc("2026-12-24T00:00:00")


def test_h16_what_repeats_keeps_its_time_on_the_wall_when_clocks_change() -> None:
    text = calendar("DTSTART;TZID=Europe/Berlin:20261019T090000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=3")
    assert starts(text, since="2026-10-01") == ["10-19 07:00", "10-26 08:00", "11-02 08:00"]


def test_h16_a_whole_day_has_25_hours_when_clocks_are_set_back() -> None:
    text = calendar("DTSTART;VALUE=DATE:20261024\nRRULE:FREQ=DAILY;COUNT=3", top="X-WR-TIMEZONE:Europe/Berlin\n")
    lasts = [(event.end_s - event.start_s) / 3600 for event in known(text, since="2026-10-01").events]
    assert lasts == [24.0, 25.0, 24.0]


def test_h16_a_duration_is_exact_when_clocks_are_set_back() -> None:
    text = calendar("DTSTART;TZID=Europe/Berlin:20261024T220000\nDURATION:PT12H")
    (event,) = known(text, since="2026-10-01").events
    assert event.end_s - event.start_s == 12 * 3600


@pytest.mark.parametrize("until", ["20261215T080000Z", "20261215", "20261215T090000"])
def test_a_series_ends_with_its_last_day(until: str) -> None:
    text = calendar(f"{BERLIN_9}\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;UNTIL={until}")
    assert starts(text) == ["12-01 08:00", "12-08 08:00", "12-15 08:00"]


def test_of_an_endless_series_only_what_is_asked_for_is_spelled_out() -> None:
    text = calendar("DTSTART:19700101T090000Z\nDURATION:PT1H\nRRULE:FREQ=DAILY")
    assert starts(text, "2026-12-01T09:30:00", "2026-12-03T09:00:00") == ["12-01 09:00", "12-02 09:00"]


def test_what_began_before_and_still_lasts_counts() -> None:
    text = calendar("DTSTART;VALUE=DATE:20261201\nDTEND;VALUE=DATE:20261211\nRRULE:FREQ=MONTHLY")
    assert starts(text, "2026-12-10T12:00:00", "2027-01-01") == ["12-01 00:00"]


def test_exceptions_are_left_out_and_extra_dates_are_added() -> None:
    text = calendar(
        f"{BERLIN_9}\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=4\n"
        "EXDATE;TZID=Europe/Berlin:20261208T090000\nEXDATE:20261215T080000Z\nRDATE:20261209T100000Z"
    )
    assert starts(text) == ["12-01 08:00", "12-09 10:00", "12-22 08:00"]


def test_an_occurrence_that_was_moved_is_where_it_was_moved_to() -> None:
    series = f"UID:a\n{BERLIN_9}\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=3"
    moved = "UID:a\nRECURRENCE-ID;TZID=Europe/Berlin:20261208T090000\nDTSTART:20261210T150000Z\nDURATION:PT1H"
    assert starts(calendar(series, moved)) == ["12-01 08:00", "12-10 15:00", "12-15 08:00"]
    gone = f"{moved}\nSTATUS:CANCELLED"
    assert starts(calendar(series, gone)) == ["12-01 08:00", "12-15 08:00"]


def test_an_entry_says_itself_what_it_does_to_demand() -> None:
    described = f"{BERLIN_9}\nDURATION:PT1H\nDESCRIPTION:All hands on deck.\\nDemand: +100..150 %\\nBring cake."
    html = "DTSTART:20261202T090000Z\nDURATION:PT1H\nDESCRIPTION:<p>demand: x3..4<br>see wiki</p>"
    marked = "DTSTART:20261203T090000Z\nDURATION:PT1H\nX-TIDEGATE-DEMAND:-50 %"
    silent = "DTSTART:20261204T090000Z\nDURATION:PT1H\nSUMMARY:Sale -50 % on everything"
    text = calendar(described, html, marked, silent)
    ratios = [(event.low_ratio, event.high_ratio) for event in known(text, usual=None).events]
    assert ratios == [(2.0, 2.5), (3.0, 4.0), (0.5, 0.5)]
    assert len(known(text, usual=USUAL).events) == 4


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("DTSTART;TZID=Nowhere/Land:20261201T090000\nDURATION:PT1H", "'Nowhere/Land' is not a known time zone"),
        ("DTSTART:2026\nDURATION:PT1H", "2026"),
        ("DURATION:PT1H", "DTSTART"),
        (f"{BERLIN_9}\nDURATION:PT1H\nRRULE:FREQ=SECONDLY", "FREQ=SECONDLY is not supported"),
        (f"{BERLIN_9}\nDURATION:PT1H\nRRULE:FREQ=NEVER", "NEVER"),
        (f"{BERLIN_9}\nDURATION:PT1H\nRRULE:FREQ=DAILY;INTERVAL=0", "INTERVAL must be at least 1"),
        (f"{BERLIN_9}\nDTEND;TZID=Europe/Berlin:20261201T080000", ""),
        (f"{BERLIN_9}\nDURATION:PT1H\nX-TIDEGATE-DEMAND:lots", "'lots' is not a change of demand"),
        (f"UID:a\nRECURRENCE-ID;RANGE=THISANDFUTURE:20261201T080000Z\n{BERLIN_9}\nDURATION:PT1H", "not supported"),
        (f"{BERLIN_9}", "must last more than no time"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_used_is_told_and_spoils_no_other(entry: str, says: str) -> None:
    found = known(calendar(f"{entry}\nSUMMARY:Odd", "DTSTART:20261224T090000Z\nDURATION:PT1H\nSUMMARY:Good"))
    assert [event.name for event in found.events] == ["Good"]
    (problem,) = found.problems
    assert problem.startswith("entry 'Odd': ")
    assert says in problem


def test_of_many_problems_the_first_are_told() -> None:
    found = known(calendar(*["DTSTART:2026"] * 30))
    assert len(found.problems) == 21
    assert found.problems[-1] == "and 10 more"


@pytest.mark.parametrize(
    "text", ["", "hello", "timestamp,value\n0,1\n", "BEGIN:VCALENDAR", "<html></html>", "\x00" * 50]
)
def test_what_is_no_calendar_is_refused(text: str) -> None:
    with pytest.raises(EventError, match="not a calendar"):
        known(text)


def test_a_calendar_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(EventError, match="larger than 4 MiB"):
        known("x" * (4 << 20) + "y")
    daily = ["DTSTART:20200101T000000Z\nDURATION:PT1H\nRRULE:FREQ=DAILY"] * 40
    with pytest.raises(EventError, match="more than 10000 events"):
        known(calendar(*daily), since="2024-01-01", until="2026-01-01")


lines = st.sampled_from(
    [
        BERLIN_9, "DTSTART:20261201T090000Z", "DTSTART;VALUE=DATE:20261201", "DTSTART:garbage", "DURATION:PT1H",
        "DURATION:-PT1H", "DURATION:P1D", "DTEND:20261202T090000Z", "DTEND;VALUE=DATE:20261203",
        "RRULE:FREQ=DAILY;COUNT=5", "RRULE:FREQ=WEEKLY", "RRULE:FREQ=MONTHLY;BYDAY=-1FR",
        "RRULE:FREQ=YEARLY;UNTIL=20301201", "RRULE:FREQ=DAILY;INTERVAL=0", "RRULE:", "EXDATE:20261202",
        "EXDATE;VALUE=DATE:20261202", "RDATE;VALUE=PERIOD:20261205T090000Z/PT2H", "RDATE:20261206", "UID:a",
        "SUMMARY:é\\n\\,", "RECURRENCE-ID:20261202T090000Z", "STATUS:CONFIRMED", "X-TIDEGATE-DEMAND:+5 %",
        "DESCRIPTION:demand: %", "NONSENSE",
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(lines, min_size=1, max_size=6, unique=True), max_size=4))
def test_whatever_entries_say_the_answer_is_events_and_problems(entries: list[list[str]]) -> None:
    try:
        found = known(calendar(*("\n".join(entry) for entry in entries)))
    except EventError:
        return
    assert len(found.problems) <= len(entries)
    for event in found.events:
        assert event.start_s < utc("2027-02-01")
        assert event.end_s > utc("2026-11-01")
    assert list(found.events) == sorted(found.events, key=lambda event: event.start_s)
