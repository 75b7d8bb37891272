"""A series of demand on a regular grid: what every part of this package works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecaster.errors import SeriesError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Demand per bin: `values[i]` is the sum over `step_s` seconds from start_s + i * step_s on; NaN: lost telemetry.

    Times are epoch seconds, so a grid knows no daylight saving. Known values are finite and not negative.
    """

    start_s: int
    step_s: int
    values: Floats

    def __post_init__(self) -> None:
        if self.step_s <= 0:
            raise SeriesError(f"step_s = {self.step_s} must be positive")
        if self.values.ndim != 1:
            raise SeriesError(f"values must be one-dimensional, not {self.values.ndim}-dimensional")
        known = self.values[~np.isnan(self.values)]
        if known.size and not (np.isfinite(known).all() and (known >= 0).all()):
            raise SeriesError("values must be finite and not negative, or NaN where telemetry was lost")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def end_s(self) -> int:
        """End of the last bin."""
        return self.start_s + len(self.values) * self.step_s

    def binned(self, step_s: int) -> Series:
        """The same demand in wider bins, aligned with the start of the series; an incomplete last bin is left out.

        A bin of which at least half is known holds the sum scaled up to the whole bin; one with less is unknown.
        """
        if step_s % self.step_s:
            raise SeriesError(f"step_s = {step_s} must be a multiple of {self.step_s}")
        width = step_s // self.step_s
        table = self.values[: len(self.values) // width * width].reshape(-1, width)
        known = np.isfinite(table)
        count = known.sum(1)
        # Divided first, and capped: the sum of the largest numbers is no number.
        means = np.where(known, table / np.maximum(count, 1)[:, None], 0.0).sum(1)
        sums = np.minimum(means, np.finfo(np.float64).max / width) * width
        return Series(self.start_s, step_s, np.where(2 * count >= width, sums, np.nan))

    def before(self, instant_s: float) -> Series:
        """The bins that had ended at `instant_s`."""
        count = int((instant_s - self.start_s) // self.step_s)
        return Series(self.start_s, self.step_s, self.values[: max(0, count)])

    def last(self, span_s: float) -> Series:
        """The last `span_s` seconds of it, in whole bins."""
        skip = max(0, len(self.values) - int(span_s // self.step_s))
        return Series(self.start_s + skip * self.step_s, self.step_s, self.values[skip:])
