"""Known events from where a policy names them: its own entries and calendar files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from forecaster.errors import EventError
from forecaster.event_settings import CalendarSettings, EventFields
from forecaster.events import Event
from forecaster.ics import MOST_CHARACTERS, Known, read_calendar


def known_events(
    entries: Iterable[EventFields], calendars: Iterable[CalendarSettings], base: Path, *, since_s: float, until_s: float
) -> Known:
    """All events that touch [since_s, until_s) (epoch seconds), by start. Relative file names lie in `base`.

    A calendar of a megabyte takes a second, which the event loop must not wait for. One that cannot be read
    is a problem and no error, so that what else is known stays known.
    """
    events = [
        event for event in (entry.event() for entry in entries) if event.end_s > since_s and event.start_s < until_s
    ]
    problems: list[str] = []
    for calendar in calendars:
        path = base / calendar.file
        try:
            known = read_calendar(
                _text(path), since_s=since_s, until_s=until_s, usual=calendar.usual(), zone=calendar.zone
            )
        except EventError as error:
            problems.append(f"{path}: {error}")
            continue
        events += known.events
        problems += [f"{path}: {problem}" for problem in known.problems]
    return Known(tuple(sorted(events, key=_order)), tuple(problems))


def _order(event: Event) -> tuple[float, float, str]:
    return event.start_s, event.end_s, event.name


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # One character more than is allowed shows that there are too many.
            return file.read(MOST_CHARACTERS + 1)
    except UnicodeDecodeError:
        raise EventError("is not UTF-8 text") from None
    except OSError as error:
        raise EventError(error.strerror or str(error)) from None
