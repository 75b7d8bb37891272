"""Demand from before the daemon was there: out of files or Prometheus into the store, minute by minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscaler.series_file import load_series
from autoscaler.store import Bin, StoreFile
from forecaster.history import BIN_S, Quantity
from forecaster.minutes import minutes_of
from forecaster.series import Floats, Series

_AT_ONCE = 5_000
"""Minutes of one transaction: the daemon that uses the store waits a few milliseconds for it."""

Source = Callable[[Callable[[], None]], Series]
"""Reads one quantity; calls what it is given after each step."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of it."""

    stored: int
    """Minutes that are in the store now and came from here."""
    kept: int
    """Minutes that the store knew already, which stayed."""
    unknown: int
    """Minutes between the first and the last of which not every quantity is known."""
    first_s: int
    """Begin of the first minute, epoch seconds."""
    last_s: int
    """Begin of the last one."""


def of_file(path: Path, *, per_second: bool) -> Source:
    """Values of a file: demand per bin, or a second. Raises SeriesError when it is read."""

    def read(progress: Callable[[], None]) -> Series:
        series = load_series(path)
        progress()
        return amounts_of(series) if per_second else series

    return read


def of_prometheus(url: str, query: str, days: float) -> Source:
    """A query that gives demand a second. Raises InputError when it is asked."""

    def read(progress: Callable[[], None]) -> Series:
        from autoscaler.commands.prometheus import fetch

        return amounts_of(fetch(url, query, days, progress=progress))

    return read


def amounts_of(rates: Series) -> Series:
    """Demand a second as demand per bin; what leaves the range of numbers is not known."""
    with np.errstate(over="ignore"):
        amounts = rates.values * float(rates.step_s)
    return Series(rates.start_s, rates.step_s, np.where(np.isfinite(amounts), amounts, np.nan))


def bins_of(model: str, series: Mapping[Quantity, Series], mean_tokens: Mapping[Quantity, float]) -> list[Bin]:
    """The minutes of which every quantity is known. `mean_tokens`: per request, of quantities without a series."""
    minutes = {quantity: minutes_of(one) for quantity, one in series.items()}
    first = min(one.start_s for one in minutes.values()) // BIN_S
    last = max(one.end_s for one in minutes.values()) // BIN_S
    table = {quantity: _placed(one, first, last) for quantity, one in minutes.items()}
    for quantity, mean in mean_tokens.items():
        table[quantity] = table[Quantity.REQUESTS] * mean
    columns = np.stack([table[quantity] for quantity in Quantity])
    known = np.isfinite(columns).all(axis=0)
    starts = (first + np.arange(last - first))[known] * BIN_S
    return [
        Bin(model, start, *amounts)
        for start, amounts in zip(starts.tolist(), columns[:, known].T.tolist(), strict=True)
    ]


def write(
    file: StoreFile, model: str, bins: list[Bin], *, replace: bool, now_s: float, progress: Callable[[int], None]
) -> Imported:
    """Store them; `progress` gets the number of minutes of each step. Minutes that have not ended are left out."""
    ended = [one for one in bins if one.start_s + BIN_S <= now_s]
    if not ended:
        return Imported(0, 0, 0, 0, 0)
    first, last = ended[0].start_s, ended[-1].start_s
    before = {one.start_s for one in file.bins(model, first, last + BIN_S)}
    kept = 0 if replace else sum(one.start_s in before for one in ended)
    for some in _portions(ended):
        file.put_bins(some, keep=not replace)
        progress(len(some))
    unknown = (last - first) // BIN_S + 1 - len(ended)
    return Imported(len(ended) - kept, kept, unknown, first, last)


def _placed(series: Series, first: int, last: int) -> Floats:
    values = np.full(last - first, np.nan)
    at = series.start_s // BIN_S - first
    values[at : at + len(series)] = series.values
    return values


def _portions(bins: list[Bin]) -> Iterator[list[Bin]]:
    for begin in range(0, len(bins), _AT_ONCE):
        yield bins[begin : begin + _AT_ONCE]
