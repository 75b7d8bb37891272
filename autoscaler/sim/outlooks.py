"""What would have been forecast when: forecasts for the played days, made once and shared by seeds and policies.

Forecasts depend on what was offered and not on what was decided, so every policy and seed may read the same ones. The
forecaster is given the bins of the series that were over at that instant and nothing else. They are those of the series
itself: bursts that are drawn per seed within or on top of its bins are not in them, as a forecaster of five-minute
means would hardly see them either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autoscaler.decide.outlook import Outlook
from autoscaler.sim.workload import Load
from forecaster.series import Series

Forecaster = Callable[[Series, float], Outlook | None]
"""(all bins that are over, epoch seconds of now) to a forecast, or None: nothing can be said. Values are in the unit of
the series (of one bin, not of a second); `made_at` of the answer is not looked at. Asked in the order of time, so it
may remember what it has seen."""

EVERY_S = 300
"""Between forecasts; five minutes is what bins are in production."""
WARM_S = 2 * 86_400
"""Forecasts are also made for so long before the played days: the controller judges forecasts by what came of them, and
would otherwise have nothing to judge by in its first days."""


class Outlooks:
    """Forecasts of one series by one forecaster. Made when they are first asked for, then kept in memory."""

    def __init__(self, series: Series, forecaster: Forecaster, *, every_s: int = EVERY_S, warm_s: int = WARM_S) -> None:
        if every_s < 1 or every_s % 60:
            raise ValueError(f"every_s = {every_s}: must be whole minutes, as history is recalled by the minute")
        self._series = series
        self._forecaster = forecaster
        self._every_s = every_s
        self._warm_s = warm_s
        self._made: dict[float, Outlook | None] = {}

    @property
    def made(self) -> int:
        """How many times the forecaster was asked."""
        return len(self._made)

    def of(self, load: Load, progress: Callable[[int], None] | None = None) -> dict[int, Outlook]:
        """Forecasts by the second of the load at which they are made, in the load's requests per second and with
        `made_at` counted from the first played second. `progress` is told the seconds that are covered."""
        found: dict[int, Outlook] = {}
        # The grid is that of the played time: the controller ticks on it.
        first = load.start - min(load.start, self._warm_s) // self._every_s * self._every_s
        for second in range(first, len(load.arrivals), self._every_s):
            outlook = self._at(load.wall + second)
            if outlook is not None:
                found[second] = scaled(outlook, load.scale, float(second - load.start))
            if progress is not None:
                progress(self._every_s)
        return found

    def _at(self, wall: float) -> Outlook | None:
        if wall not in self._made:
            self._made[wall] = self._forecaster(self._series.before(wall), wall)
        return self._made[wall]


def scaled(outlook: Outlook, factor: float, made_at: float) -> Outlook:
    """The same forecast in another unit, made at another instant."""
    values = tuple(tuple(factor * value for value in row) for row in outlook.values)
    return replace(outlook, values=values, made_at=made_at)
