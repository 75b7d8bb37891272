"""Demand and traces out of text: `timestamp,value` and `arrival_seconds,input_tokens,output_tokens`."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class SeriesError(ValueError):
    """A line that cannot be read, with its number."""


@dataclass(frozen=True, slots=True)
class Series:
    """Demand on a regular grid."""

    start: float
    """Epoch seconds of the first bin's begin; times without zone are taken as UTC."""
    bin_s: float
    values: Floats
    """Demand of each bin, in any unit; NaN where telemetry was lost."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests: arrival in seconds from the start, and lengths in tokens."""

    arrivals: Floats
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]


def read_series(lines: Iterable[str]) -> Series:
    """`timestamp,value` with epoch seconds or ISO 8601; an empty value is lost telemetry. Raises SeriesError."""
    times: list[float] = []
    values: list[float] = []
    for number, row in enumerate(csv.reader(lines), 1):
        if not row or (number == 1 and row[0].strip().lower() in ("timestamp", "time", "time_s")):
            continue
        if len(row) < 2:
            raise SeriesError(f"line {number}: expected timestamp,value, not {','.join(row)[:60]!r}")
        times.append(_instant(row[0].strip(), number))
        values.append(_value(row[1].strip(), number))
    if len(times) < 2:
        raise SeriesError(f"{len(times)} rows; at least two are needed")
    at = np.array(times)
    steps = np.diff(at)
    bin_s = float(np.median(steps))
    uneven = steps <= 0.0
    if bin_s > 0.0:
        uneven |= np.abs(steps / bin_s - np.round(steps / bin_s)) > 0.01
    if bool(uneven.any()):
        raise SeriesError(f"row {int(np.argmax(uneven)) + 2}: times must rise in equal steps (of {bin_s:g} s here)")
    index = np.round((at - at[0]) / bin_s).astype(int)
    grid = np.full(index[-1] + 1, np.nan)
    grid[index] = values
    return Series(float(at[0]), bin_s, grid)


def read_trace(lines: Iterable[str]) -> Trace:
    """`arrival_seconds,input_tokens,output_tokens` with a header; further columns are ignored. Raises SeriesError."""
    reader = csv.DictReader(lines)
    names = ("arrival_seconds", "input_tokens", "output_tokens")
    if not set(names) <= set(reader.fieldnames or ()):
        raise SeriesError(f"line 1: expected the columns {', '.join(names)}, not {reader.fieldnames}")
    rows: list[tuple[float, int, int]] = []
    for number, row in enumerate(reader, 2):
        try:
            rows.append((float(row[names[0]]), int(row[names[1]]), int(row[names[2]])))
        except (TypeError, ValueError):
            raise SeriesError(f"line {number}: expected three numbers") from None
    if not rows:
        raise SeriesError("the trace has no requests")
    arrivals, prompts, outputs = zip(*sorted(rows), strict=True)
    return Trace(np.array(arrivals), np.maximum(1, np.array(prompts)), np.maximum(1, np.array(outputs)))


def _instant(text: str, number: int) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SeriesError(f"line {number}: {text[:40]!r} is neither epoch seconds nor ISO 8601") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _value(text: str, number: int) -> float:
    if not text:
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        raise SeriesError(f"line {number}: {text[:40]!r} is not a number") from None
    if not isfinite(value) or value < 0.0:
        raise SeriesError(f"line {number}: demand must be a finite number of at least 0, not {text[:40]}")
    return value
