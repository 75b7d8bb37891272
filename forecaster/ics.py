"""Known events out of calendar files (iCalendar, RFC 5545). The only door to `icalendar` and `dateutil`.

A calendar is full of meetings, so an entry counts only if it says what it does to demand: by `demand: +40..120 %` in
its description, in a property `X-TIDEGATE-DEMAND`, or because the settings give the whole calendar a usual change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from itertools import islice

from dateutil.rrule import rrule, rrulestr
from icalendar import Calendar
from icalendar import Event as Entry

from forecaster.errors import EventError
from forecaster.events import Event, ratios_of, zone_of

MOST_CHARACTERS = 4 << 20
"""A calendar of ten years of a busy team has about one million."""
_MOST_EVENTS = 10_000
"""Occurrences within the time that is asked for: one an hour for a year."""
_MOST_PROBLEMS = 20
_RULES = frozenset({"DAILY", "WEEKLY", "MONTHLY", "YEARLY"})
"""What repeats more often is a shape of demand that the models learn, and would take hours to spell out since 1970."""
_DEMAND = re.compile(r"\bdemand\s*:\s*([^\n<;,]+?%|x[\d. x]+)", re.IGNORECASE)
# What the two libraries raise for entries that cannot be read.
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Known:
    """What a calendar says."""

    events: tuple[Event, ...]
    """By start."""
    problems: tuple[str, ...]
    """Entries that could not be used and were left out, and why; of many the first twenty."""


def read_calendar(
    text: str, *, since_s: float, until_s: float, usual: tuple[float, float] | None = None, zone: str = "UTC"
) -> Known:
    """The events that touch [since_s, until_s) (epoch seconds), repeated ones spelled out, cancelled ones left out.

    `usual`: (low, high) ratio of entries that give none; None: they do not count. `zone`: of times that name none, if
    the calendar (`X-WR-TIMEZONE`) does not either. Raises EventError if it is no calendar.
    """
    if len(text) > MOST_CHARACTERS:
        raise EventError(f"the calendar is larger than {MOST_CHARACTERS >> 20} MiB: export fewer entries")
    try:
        calendar = Calendar.from_ical(text)
    except _BROKEN as error:
        raise EventError(f"not a calendar (iCalendar, .ics): {_short(error)}") from None
    problems: list[str] = []
    entries = [entry for entry in calendar.walk("VEVENT") if isinstance(entry, Entry)]
    moved = _moved(entries)
    events: list[Event] = []
    for entry in entries:
        name = str(entry.get("SUMMARY", "")).strip()
        try:
            local = zone_of(str(calendar.get("X-WR-TIMEZONE", zone)))
            events += _events(entry, name, usual, local, since_s, until_s, moved)
        except (EventError, *_BROKEN) as error:
            problems.append(f"entry {name[:60]!r}: {_short(error)}")
    if len(events) > _MOST_EVENTS:
        raise EventError(f"the calendar has more than {_MOST_EVENTS} events in the time that is looked at")
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = [f"and {len(problems) - _MOST_PROBLEMS} more"]
    return Known(tuple(sorted(events, key=lambda event: (event.start_s, event.end_s, event.name))), tuple(problems))


def _moved(entries: list[Entry]) -> set[tuple[str, object]]:
    """(UID, instant) of occurrences that an entry of their own replaces."""
    found: set[tuple[str, object]] = set()
    for entry in entries:
        if "RECURRENCE-ID" in entry:
            original = entry["RECURRENCE-ID"]
            found.add((str(entry.get("UID")), _exact(getattr(original, "dt", None))))
    return found


def _events(
    entry: Entry,
    name: str,
    usual: tuple[float, float] | None,
    local: tzinfo,
    since_s: float,
    until_s: float,
    moved: set[tuple[str, object]],
) -> Iterator[Event]:
    """The occurrences of one entry that count."""
    ratios = _ratios(entry) or usual
    if ratios is None or str(entry.get("STATUS", "")).upper() == "CANCELLED":
        return
    if entry.errors:
        raise EventError(_short(entry.errors[0][1]))
    if "RECURRENCE-ID" in entry and entry["RECURRENCE-ID"].params.get("RANGE"):
        raise EventError("RECURRENCE-ID with RANGE is not supported: split the series in two")
    begin = entry.start
    if isinstance(begin, datetime) and begin.tzinfo is None and "TZID" in entry["DTSTART"].params:
        raise EventError(f"{entry['DTSTART'].params['TZID']!r} is not a known time zone")
    zone = (begin.tzinfo if isinstance(begin, datetime) else None) or local
    first = _wall(begin, zone)
    lasts = entry.duration if "DURATION" in entry else None
    spans = _wall(entry.end, zone) - first
    uid = str(entry.get("UID"))
    for at in islice(_occurrences(entry, first, zone, since_s, until_s, max(spans, lasts or spans)), _MOST_EVENTS + 1):
        start_s = at.replace(tzinfo=zone).timestamp()
        # A duration is exact; an end is a time on the wall, so that a day stays a day when clocks change.
        end_s = (at + spans).replace(tzinfo=zone).timestamp() if lasts is None else start_s + lasts.total_seconds()
        replaced = "RECURRENCE-ID" not in entry and not moved.isdisjoint({(uid, start_s), (uid, at), (uid, at.date())})
        if start_s < until_s and end_s > since_s and not replaced:
            yield Event(start_s, end_s, *ratios, name)


def _occurrences(
    entry: Entry, first: datetime, zone: tzinfo, since_s: float, until_s: float, longest: timedelta
) -> Iterator[datetime]:
    """Starts on the wall of `zone`, in order; of a series only those around the time that is asked for."""
    left_out = {_exact(one) for one in entry.exdates}

    def kept(at: datetime) -> bool:
        return left_out.isdisjoint({at.replace(tzinfo=zone).timestamp(), at, at.date()})

    seen = set() if entry.rrules else {first}
    day = timedelta(days=1)
    earliest = datetime.fromtimestamp(since_s, zone).replace(tzinfo=None) - longest - day
    latest = datetime.fromtimestamp(until_s, zone).replace(tzinfo=None) + day
    for rule in entry.rrules:
        often = str(rule.get("FREQ", ["?"])[0]).upper()
        if often not in _RULES:
            raise EventError(f"FREQ={often} is not supported; the most frequent is DAILY")
        if int(rule.get("INTERVAL", [1])[0]) < 1:
            raise EventError("INTERVAL must be at least 1")
        until = rule.get("UNTIL", [None])[0]
        text = ";".join(part for part in rule.to_ical().decode().split(";") if not part.startswith("UNTIL="))
        series = rrulestr(text, dtstart=first)
        assert isinstance(series, rrule)
        if until is not None:
            # A date includes its day.
            last = _wall(until, zone) if isinstance(until, datetime) else datetime.combine(until, time.max)
            series = series.replace(until=last)
        for at in series.xafter(earliest, inc=True):
            if at > latest or len(seen) > _MOST_EVENTS:
                break
            seen.add(at)
    for extra, _ in entry.rdates:
        seen.add(_wall(extra, zone))
    return filter(kept, sorted(seen))


def _ratios(entry: Entry) -> tuple[float, float] | None:
    given = entry.get("X-TIDEGATE-DEMAND")
    if given is not None:
        return ratios_of(str(given))
    match = _DEMAND.search(str(entry.get("DESCRIPTION", "")))
    return None if match is None else ratios_of(match[1])


def _wall(moment: date | datetime, zone: tzinfo) -> datetime:
    """What a clock on the wall in this zone shows; times without zone are of it."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time.min)
    return (moment.astimezone(zone) if moment.tzinfo else moment).replace(tzinfo=None)


def _exact(moment: object) -> object:
    """Epoch seconds where they are known; else the date or the time on the wall."""
    return moment.timestamp() if isinstance(moment, datetime) and moment.tzinfo else moment


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]
