"""A series of any step as minutes, which is how history is kept."""

from __future__ import annotations

import numpy as np

from forecaster.history import BIN_S
from forecaster.series import Series


def minutes_of(series: Series) -> Series:
    """The same demand per minute, on full minutes: a share of a wider bin, the sum of narrower ones.

    A minute of which half or more is known is scaled up to the whole; with less it is NaN. Sums are kept, but for the
    parts of a minute at either end.
    """
    if series.step_s == BIN_S and series.start_s % BIN_S == 0:
        return series
    first = series.start_s // BIN_S
    edges_s = np.arange(first, -(-series.end_s // BIN_S) + 1) * float(BIN_S)
    bounds_s = series.start_s + series.step_s * np.arange(len(series) + 1.0)
    known = ~np.isnan(series.values)
    # Both totals rise evenly within a bin, so that differences between minutes are what fell into each.
    most = max(float(np.max(series.values, initial=0.0, where=known)), 1.0)
    amounts = np.concatenate(([0.0], np.cumsum(np.where(known, series.values / most, 0.0))))
    covered = np.concatenate(([0.0], np.cumsum(np.where(known, float(series.step_s), 0.0))))
    amount = np.diff(np.interp(edges_s, bounds_s, amounts))
    seen_s = np.diff(np.interp(edges_s, bounds_s, covered))
    enough = seen_s >= BIN_S / 2 - 1e-6
    values = np.full(len(amount), np.nan)
    # Scaled last: near the largest number a sum, and even one bin's share scaled up, would be infinite.
    scaled = np.maximum(amount[enough], 0.0) * (BIN_S / seen_s[enough])
    values[enough] = np.minimum(scaled, np.finfo(np.float64).max / most) * most
    return Series(first * BIN_S, BIN_S, values)
