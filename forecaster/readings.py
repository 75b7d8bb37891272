"""A series out of text: lines `timestamp,value`, as people and Prometheus tools write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from math import isfinite, nan

import numpy as np

from forecaster.errors import SeriesError
from forecaster.series import Floats, Ints, Series

_CHUNK_LINES = 65_536
"""Lines that are converted at once: a few megabytes, however long the file is."""
_MOST_ERRORS = 20
"""Problems that are spelled out; a file with more of them has one cause, which twenty show."""
_TIME_NAMES = frozenset({"timestamp", "time", "time_s", "timestamp_s", "datetime", "date", "ts"})
"""What the first column of a header may be called."""
_LATEST_S = 1e11
"""Year 5138. Epoch milliseconds of any date since 1973 are above it, so that they are recognised and not believed."""
_MOST_BINS = 10_000_000
"""19 years of minutes, 80 MB: a grid beyond it comes from one wrong time, not from a long history."""
_STEP_OF_ONE_ROW_S = 60
"""The width of the bins that the balancer keeps: a file with one row does not show its own."""
_DIVISIBLE_RATIO = 0.9
"""Differences that must be multiples of the most common one for it to be the step; jitter leaves far fewer."""
_ROUND_STEPS_S = (
    1,
    5,
    10,
    15,
    20,
    30,
    60,
    120,
    300,
    600,
    900,
    1_200,
    1_800,
    3_600,
    7_200,
    14_400,
    21_600,
    43_200,
    86_400,
)
"""Intervals at which people sample."""
_PLAIN_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")


@dataclass(slots=True)
class _Problems:
    """What was wrong, by line."""

    texts: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, number: int, text: str) -> None:
        self.count += 1
        if len(self.texts) < _MOST_ERRORS:
            self.texts.append(f"line {number}: {text}")

    def settle(self) -> None:
        if self.count:
            more = self.count - len(self.texts)
            raise SeriesError("\n".join(self.texts + ([f"and {more} more lines like these"] if more else [])))


def read_series(lines: Iterable[str]) -> Series:
    """Demand on a regular grid out of `timestamp,value` lines, with a header or without; further columns are ignored.

    A timestamp is epoch seconds, or ISO 8601 (UTC where it names no zone), and is the start of its bin, to the second.
    An empty value is lost telemetry. Lines may come in any order. The step is the most common difference between times,
    or, where times jitter, the round interval nearest to the median one. Times are then taken to the nearest bin; bins
    without a row are NaN.

    A time that comes twice holds what the later line says, as after a repeated export (adding up would double demand),
    but a later empty value does not erase a known one. Different times that fall into one bin are each a reading of
    that bin, so it holds their mean.

    Raises SeriesError, with the lines (from 1) and what is wrong in them, for the first twenty.
    """
    problems = _Problems()
    times: list[Floats] = []
    values: list[Floats] = []
    source = iter(lines)
    number = 1
    while chunk := list(islice(source, _CHUNK_LINES)):
        first = 0
        if number == 1:
            chunk[0] = chunk[0].removeprefix("\ufeff")
            first = _header_lines(chunk, problems)
        read = _in_bulk(chunk[first:]) or _one_by_one(chunk[first:], number + first, problems)
        times.append(read[0])
        values.append(read[1])
        number += len(chunk)
    problems.settle()
    at, known = (np.concatenate(parts) if parts else np.empty(0) for parts in (times, values))
    if not at.size:
        raise SeriesError("no rows: expected lines of timestamp,value")
    times_s = np.rint(at).astype(np.int64)
    if (at % 1 != 0).any() and 2 * np.unique(times_s).size <= np.unique(at).size:
        raise SeriesError("times are closer together than a second: add the values up in bins of a second or more")
    return _on_grid(times_s, known)


def _header_lines(chunk: Sequence[str], problems: _Problems) -> int:
    """How many lines at the top hold no data."""
    for index, line in enumerate(chunk):
        names = [_bare(part).lower() for part in line.split(",")]
        if not any(names):
            continue
        if _instant(names[0]) is not None:
            return index
        if names[0] not in _TIME_NAMES or len(names) < 2:
            problems.add(index + 1, f"expected the header timestamp,value or a first row, not {_short(line)}")
        return index + 1
    return len(chunk)


def _in_bulk(chunk: Sequence[str]) -> tuple[Floats, Floats] | None:
    """Times and values; None where a line needs a closer look."""
    rows = [line.partition(",") for line in chunk]
    if not all(row[1] for row in rows):
        return None
    stamps = [row[0] for row in rows]
    texts = [row[2].partition(",")[0].strip() for row in rows]
    try:
        values = np.array([float(text) if text else nan for text in texts])
        times = _times_in_bulk(stamps)
    except (ValueError, OverflowError):
        return None
    unknown = np.isnan(values)
    sound = int(unknown.sum()) == texts.count("") and bool((unknown | (np.isfinite(values) & (values >= 0))).all())
    return (times, values) if sound and bool(((times >= 0) & (times < _LATEST_S)).all()) else None


def _times_in_bulk(stamps: Sequence[str]) -> Floats:
    if stamps and _PLAIN_ISO.fullmatch(stamps[0]) and all(len(stamp) == 19 and stamp[16] == ":" for stamp in stamps):
        # Thirty times as fast as one by one. A colon in this place leaves no room for a zone, which numpy ignores.
        return np.array(stamps, dtype="datetime64[s]").astype(np.float64)
    try:
        return np.array([float(stamp) for stamp in stamps])
    except ValueError:
        return np.array([_seconds_of(stamp) for stamp in stamps])


def _one_by_one(chunk: Sequence[str], number: int, problems: _Problems) -> tuple[Floats, Floats]:
    """The rows that are right; what is wrong with the others goes to `problems`."""
    times: list[float] = []
    values: list[float] = []
    for at, line in enumerate(chunk, number):
        fields = [_bare(part) for part in line.split(",")]
        if not any(fields):
            continue
        if len(fields) < 2:
            problems.add(at, f"expected timestamp,value, not {_short(line)}")
            continue
        time = _instant(fields[0])
        if time is None:
            problems.add(at, f"{_short(fields[0])} is neither epoch seconds nor ISO 8601 such as 2026-12-01T09:00:00Z")
        elif time >= _LATEST_S:
            problems.add(
                at, f"time {_short(fields[0])} is past the year 5138; epoch times are seconds, not milliseconds"
            )
        elif time < 0:
            problems.add(at, f"time {_short(fields[0])} is before 1970")
        value = _amount(fields[1])
        if isinstance(value, str):
            problems.add(at, value)
        elif time is not None:
            times.append(time)
            values.append(value)
    return np.array(times), np.array(values)


def _instant(text: str) -> float | None:
    """Epoch seconds; None where the text is no time."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            return _seconds_of(text)
        except (ValueError, OverflowError):
            return None
    return seconds if isfinite(seconds) else None


def _seconds_of(stamp: str) -> float:
    moment = datetime.fromisoformat(stamp.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _amount(text: str) -> float | str:
    """A value, or what is wrong with it."""
    if not text:
        return nan
    try:
        value = float(text)
    except ValueError:
        return f"value {_short(text)} is not a number; leave it empty where telemetry was lost"
    if not isfinite(value):
        return f"value {_short(text)} is not finite; leave it empty where telemetry was lost"
    return value if value >= 0 else f"value {_short(text)} is negative; demand is at least 0"


def _bare(text: str) -> str:
    return text.strip().strip("\"'").strip()


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _on_grid(times: Ints, values: Floats) -> Series:
    order = np.lexsort((np.arange(times.size), ~np.isnan(values), times))
    times, values = times[order], values[order]
    last = np.append(times[1:] != times[:-1], True)
    times, values = times[last], values[last]
    step = _step_s(times)
    phases, counts = np.unique(times % step, return_counts=True)
    phase = int(phases[np.argmax(counts)])
    # Half a step rounds up, so that a reading is never taken for demand before it.
    bins = (2 * (times - phase) + step) // (2 * step)
    index = bins - bins[0]
    if index[-1] >= _MOST_BINS:
        raise SeriesError(_too_wide(times, step))
    seen = ~np.isnan(values)
    per_bin = np.bincount(index[seen], minlength=index[-1] + 1)
    # Each share is divided before it is added: a sum of numbers near the largest one would be infinite.
    shares = values[seen] / per_bin[index[seen]]
    sums = np.bincount(index[seen], weights=shares, minlength=index[-1] + 1)
    return Series(int(bins[0]) * step + phase, step, np.where(per_bin > 0, sums, nan))


def _step_s(times: Ints) -> int:
    """The distance between bins; `times` rise and hold each second once."""
    if times.size < 2:
        return _STEP_OF_ONE_ROW_S
    gaps = np.diff(times)
    sizes, counts = np.unique(gaps, return_counts=True)
    common = int(sizes[np.argmax(counts)])
    if (gaps % common == 0).mean() >= _DIVISIBLE_RATIO:
        return common
    middle = float(np.median(gaps))
    return min(_ROUND_STEPS_S, key=lambda step: abs(np.log(step / middle)))


def _too_wide(times: Ints, step_s: int) -> str:
    at = int(np.argmax(np.diff(times)))
    before, after = (datetime.fromtimestamp(int(times[i]), UTC).isoformat() for i in (at, at + 1))
    return (
        f"times span {(times[-1] - times[0]) / 86_400:.0f} days in steps of {step_s} s, more than {_MOST_BINS} bins; "
        f"the widest gap lies between {before} and {after}: is one of these times wrong?"
    )
