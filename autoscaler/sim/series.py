"""Demand and traces out of text: `timestamp,value` and `arrival_seconds,input_tokens,output_tokens`."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecaster import readings
from forecaster.errors import SeriesError
from forecaster.series import Series

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests: arrival in seconds from the start, and lengths in tokens."""

    arrivals: Floats
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]


def read_series(lines: Iterable[str]) -> Series:
    """`forecaster.readings.read_series` of what can be played: at least two known values. Raises SeriesError."""
    series = readings.read_series(lines)
    known = int(np.isfinite(series.values).sum())
    if known < 2:
        raise SeriesError(f"{known} known values; at least two are needed")
    return series


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
