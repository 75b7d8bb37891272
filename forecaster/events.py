"""Known events: hours in which demand will be so many times what it would be otherwise, and within which range."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import numpy as np

from forecaster.errors import EventError
from forecaster.series import Floats

MOST_RATIO = 1_000.0
"""Beyond a thousand times the usual demand a percentage was mistyped; no fleet could follow it either."""
LONGEST_S = 366 * 86_400.0
"""What lasts longer than a year is no event but the demand itself."""
_ENTRY = re.compile(r"(?P<at>.+?)\s+for\s+(?P<span>[^,]+?)\s*,\s*(?P<demand>[^,]+?)\s*(?:,\s*(?P<name>.+))?", re.DOTALL)
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_PERCENT = re.compile(
    rf"(?P<sign>[+-])\s*(?P<one>{_NUMBER})\s*%?\s*(?:(?:\.\.|…)\s*(?P<sign2>[+-])?\s*(?P<two>{_NUMBER})\s*)?%"
)
_TIMES = re.compile(rf"x\s*(?P<one>{_NUMBER})(?:\s*(?:\.\.|…)\s*x?\s*(?P<two>{_NUMBER}))?", re.IGNORECASE)
_SPAN = re.compile(
    rf"(?:({_NUMBER})\s*w)?\s*(?:({_NUMBER})\s*d)?\s*(?:({_NUMBER})\s*h)?\s*(?:({_NUMBER})\s*m(?:in)?)?\s*(?:({_NUMBER})\s*s)?"
)
_SPAN_UNITS_S = (7 * 86_400.0, 86_400.0, 3_600.0, 60.0, 1.0)
_AT = re.compile(r"(?P<date>\d{4}-\d\d-\d\d)(?:[T ]\s*(?P<time>\d\d:\d\d(?::\d\d)?))?\s*(?P<zone>\S+)?")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")


@dataclass(frozen=True, slots=True)
class Event:
    """Between two instants demand is `low_ratio` to `high_ratio` times what it would be otherwise."""

    start_s: float
    """Epoch seconds."""
    end_s: float
    low_ratio: float
    """1.4: forty percent more; 0.5: half."""
    high_ratio: float
    name: str = ""

    def __post_init__(self) -> None:
        if not 0.0 < self.end_s - self.start_s <= LONGEST_S:
            raise EventError(f"{self._called}must last more than no time and up to 366 days")
        if not 0.0 <= self.low_ratio <= self.high_ratio <= MOST_RATIO:
            raise EventError(
                f"{self._called}demand must be between 0 and {MOST_RATIO:g} times the usual, the lower bound first, "
                f"not {self.low_ratio:g} to {self.high_ratio:g}"
            )

    @property
    def _called(self) -> str:
        return f"event {self.name[:60]!r}: " if self.name else "an event "


def factor(events: Sequence[Event], start_s: float, end_s: float) -> tuple[float, float]:
    """(low, high) by which the events change the demand of the bin [start_s, end_s); (1, 1) outside of all.

    An event that covers a part of the bin counts for that part. Those that overlap are separate causes: they multiply.
    """
    low = high = 1.0
    for event in events:
        covered = max(0.0, min(end_s, event.end_s) - max(start_s, event.start_s)) / (end_s - start_s)
        low *= 1.0 + covered * (event.low_ratio - 1.0)
        high *= 1.0 + covered * (event.high_ratio - 1.0)
    return low, high


def factors(events: Sequence[Event], start_s: float, step_s: float, count: int) -> tuple[Floats, Floats]:
    """`factor` for each of `count` bins on a grid: two arrays, low and high."""
    low, high = np.ones(count), np.ones(count)
    for event in events:
        first = max(0, int((event.start_s - start_s) // step_s))
        last = min(count, int((event.end_s - start_s) // step_s) + 1)
        if first >= last:
            continue
        begins = start_s + step_s * np.arange(first, last)
        covered = np.minimum(begins + step_s, event.end_s) - np.maximum(begins, event.start_s)
        share = np.maximum(covered, 0.0) / step_s
        low[first:last] *= 1.0 + share * (event.low_ratio - 1.0)
        high[first:last] *= 1.0 + share * (event.high_ratio - 1.0)
    return low, high


def event_of(text: str) -> Event:
    """`2026-12-01 09:00 Europe/Berlin for 3h, +40..120 %`, with a name after another comma if there is one.

    Raises EventError.
    """
    parts = split(text)
    start_s = instant_s(parts["at"])
    return Event(start_s, start_s + span_s(parts["for"]), *ratios_of(parts["demand"]), parts["name"])


def split(text: str) -> dict[str, str]:
    """The parts of an event's line: `at`, `for`, `demand`, `name`. Raises EventError."""
    match = _ENTRY.fullmatch(text.strip()) if len(text) <= 500 else None
    if match is None:
        raise EventError(
            f"{text[:80]!r} is not an event; write when, how long, how much and perhaps a name, such as "
            "'2026-12-01 09:00 Europe/Berlin for 3h, +40..120 %, launch'"
        )
    return {"at": match["at"], "for": match["span"], "demand": match["demand"], "name": (match["name"] or "").strip()}


def ratios_of(text: str) -> tuple[float, float]:
    """`+40..120 %` to (1.4, 2.2), `-50 %` to (0.5, 0.5), `-10..+20 %` to (0.9, 1.2), `x2..3` to (2, 3).

    Raises EventError.
    """
    text = text.strip().replace("−", "-")
    if match := _TIMES.fullmatch(text):
        one = float(match["one"])
        two = one if match["two"] is None else float(match["two"])
    elif match := _PERCENT.fullmatch(text):
        if match["two"] and match["sign"] == "-" and not match["sign2"]:
            raise EventError(f"{text!r}: after a minus the second number needs its sign, too: -10..+20 % or -50..-20 %")
        one = 1.0 + float(f"{match['sign']}{match['one']}") / 100.0
        two = one
        if match["two"]:
            two = 1.0 + float(f"{match['sign2'] or match['sign']}{match['two']}") / 100.0
    else:
        raise EventError(f"{text[:40]!r} is not a change of demand; write +40..120 %, +40 %, -50 % or x2..3")
    low, high = sorted((one, two))
    if not 0.0 <= low <= high <= MOST_RATIO:
        raise EventError(f"{text!r}: demand cannot fall by more than 100 % or grow to over {MOST_RATIO:g} times")
    return low, high


def span_s(text: str) -> float:
    """`3h`, `1h30m`, `2d`, `1w` to seconds. A day is 24 hours, whatever clocks do. Raises EventError."""
    match = _SPAN.fullmatch(text.strip())
    parts = (
        [(float(part), unit) for part, unit in zip(match.groups(), _SPAN_UNITS_S, strict=True) if part] if match else []
    )
    seconds = sum(part * unit for part, unit in parts)
    if not 0.0 < seconds <= LONGEST_S:
        raise EventError(f"{text[:40]!r} is not how long an event lasts; write 90m, 3h, 1h30m or 2d, up to 366 days")
    return seconds


def instant_s(text: str) -> float:
    """`2026-12-01 09:00 Europe/Berlin` to epoch seconds. The zone is a name, `UTC`, `Z` or `+01:00`, and must be there.

    Of an hour that comes twice the first is meant. Raises EventError, also for an hour that clocks skip.
    """
    match = _AT.fullmatch(text.strip())
    try:
        local = datetime.fromisoformat(f"{match['date']}T{match['time'] or '00:00'}") if match else None
    except ValueError:
        local = None
    if match is None or local is None:
        raise EventError(
            f"{text[:60]!r} is not an instant; write a date, a time and a zone: 2026-12-01 09:00 Europe/Berlin"
        )
    if match["zone"] is None:
        raise EventError(f"{text!r} names no time zone; write {text.strip()} UTC or a zone such as Europe/Berlin")
    zone = zone_of(match["zone"])
    moment = local.replace(tzinfo=zone)
    if moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        raise EventError(f"{text!r} does not exist: clocks of {match['zone']} skip this time on that day")
    return moment.timestamp()


def zone_of(name: str) -> tzinfo:
    """A zone by its name in the IANA database, `UTC`, `Z`, or an offset. Raises EventError."""
    if name.upper() in ("Z", "UTC"):
        return UTC
    if offset := _OFFSET.fullmatch(name):
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if ahead < timedelta(days=1):
            return timezone(ahead if offset[1] == "+" else -ahead)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise EventError(f"{name[:40]!r} is not a time zone; write one such as Europe/Berlin, UTC or +01:00") from None
