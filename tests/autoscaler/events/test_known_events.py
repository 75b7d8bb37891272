"""Entries of a policy and calendar files together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.known_events import known_events
from forecaster.event_settings import CalendarSettings, EventFields, EventSettings
from forecaster.events import Event, event_of, instant_s
from forecaster.ics import MOST_CHARACTERS, Known
from lb.decode import Finding, decode
from lb.settings import Section
from lb.yaml_document import DocumentError, read_document

SINCE_S = instant_s("2026-12-01 UTC")
UNTIL_S = instant_s("2027-01-01 UTC")
ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Acme//Calendar//EN
BEGIN:VEVENT
UID:1
SUMMARY:Téléthon
DTSTART;TZID=Europe/Paris:20261204T180000
DTEND;TZID=Europe/Paris:20261206T020000
DESCRIPTION:demand: +30..90 %
END:VEVENT
BEGIN:VEVENT
UID:2
SUMMARY:Stand-up
DTSTART:20261202T090000Z
DURATION:PT15M
RRULE:FREQ=DAILY
END:VEVENT
END:VCALENDAR
""".replace("\n", "\r\n")


def entry(at: str) -> EventFields:
    return EventFields.model_validate({"at": at, "for": "3h", "demand": "x2", "name": "launch"})


def known(base: Path, *entries: EventFields, **calendar: str) -> Known:
    calendars = [CalendarSettings.model_validate(calendar)] if calendar else []
    return known_events(entries, calendars, base, since_s=SINCE_S, until_s=UNTIL_S)


def test_entries_and_calendars_come_together_by_start(tmp_path: Path) -> None:
    (tmp_path / "team.ics").write_bytes(b"\xef\xbb\xbf" + ICS.encode())
    entries = (entry("2026-12-24 20:00 UTC"), entry("2026-11-01 UTC"), entry("2026-11-30 23:00 UTC"))
    found = known(tmp_path, *entries, file="team.ics")
    telethon = Event(
        instant_s("2026-12-04 18:00 Europe/Paris"), instant_s("2026-12-06 02:00 Europe/Paris"), 1.3, 1.9, "Téléthon"
    )
    assert found.problems == ()
    assert [event.name for event in found.events] == ["launch", "Téléthon", "launch"]
    assert found.events[1] == telethon
    assert found.events[0].end_s == instant_s("2026-12-01 02:00 UTC")


def test_a_calendar_may_count_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "team.ics").write_text(ICS, newline="")
    found = known(tmp_path, file="team.ics", demand="+5 %")
    assert len(found.events) == 31
    assert {event.low_ratio for event in found.events} == {1.05, 1.3}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"<html></html>", "not a calendar"),
        (b"x" * (MOST_CHARACTERS + 2), "larger than 4 MiB"),
        (ICS.replace("T180000", "T99").encode(), "entry 'Téléthon'"),
    ],
)
def test_a_calendar_that_cannot_be_read_takes_nothing_else_away(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "team.ics"
    if content is not None:
        path.write_bytes(content)
    found = known(tmp_path, entry("2026-12-24 20:00 UTC"), file="team.ics")
    assert [event.name for event in found.events] == ["launch"]
    (problem,) = found.problems
    assert problem.startswith(f"{path}: ")
    assert says in problem


class _Events(Section):
    """A part of a policy with known events."""

    events: tuple[EventSettings, ...] = ()
    """Known events."""


def _no_findings(_: _Events) -> Iterator[Finding]:
    return iter(())


def test_the_example_in_the_readme_is_what_a_policy_takes() -> None:
    readme = (Path(__file__).parents[3] / "forecaster" / "README.md").read_text()
    match = re.search(r"```yaml\n(.+?)```", readme, re.DOTALL)
    assert match is not None
    events = decode(_Events, read_document("events:\n" + match[1]), _no_findings).events
    assert [event.event().name for event in events] == ["launch", ""]
    assert events[0].event() == event_of("2026-12-01 09:00 Europe/Berlin for 3h, +40..120 %, launch")


def test_a_policy_names_the_line_and_the_field_of_a_wrong_event() -> None:
    lines = ("- tomorrow", "- 2026-12-01 09:00 Mars/Olympus for 3h, +40 %", "- at: 2026-12-01 UTC", "  demand: x2")
    text = "events:\n" + "".join(f"  {line}\n" for line in lines)
    with pytest.raises(DocumentError) as caught:
        decode(_Events, read_document(text), _no_findings)
    told = [problem.text("p.yaml") for problem in caught.value.problems]
    assert [line.split(" ")[0] for line in told] == ["p.yaml:2:", "p.yaml:3:", "p.yaml:4:"]
    assert "events[0] = 'tomorrow': is not an event" in told[0]
    assert "events[1].at: 'Mars/Olympus' is not a time zone" in told[1]
    assert "events[2].for: is missing" in told[2]
