"""The forecaster of production, as the plant asks it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from autoscaler.decide.outlook import Outlook
from autoscaler.outlooks import outlook_of
from forecaster.forecast import Forecaster
from forecaster.series import Series
from forecaster.settings import ForecastSettings

_HORIZONS = (1, 2, 3, 6, 12)
"""In bins, of five minutes or the series' own: to an hour or two, past any start-up, drain and payback."""
_LEAST_STEP_S = 300


class Foresight:
    """Forecasts of one series, asked in the order of time. Values are per bin of the series."""

    def __init__(self) -> None:
        self._forecaster: Forecaster | None = None
        self._end_s = 0

    def __call__(self, past: Series, now_s: float) -> Outlook | None:
        """The forecast at `now_s` from the bins that were over."""
        if self._forecaster is None:
            self._forecaster = Forecaster(settings_for(past.step_s))
        if past.end_s > self._end_s:
            self._end_s = past.end_s
            self._forecaster.observe(past)
        made = self._forecaster.forecast(now_s)
        if made is None:
            return None
        # Both clocks of the plant are the same.
        return seen_from(now_s, outlook_of(made, mono_s=now_s, wall_s=now_s), past.step_s)


def can_forecast(step_s: int) -> bool:
    """Whether bins of this width fit into a day, which forecasts count in."""
    return 86_400 % step_s == 0


def settings_for(step_s: int) -> ForecastSettings:
    """Bins of five minutes, or the next width that a day and the series' bins fit into. `step_s` divides a day."""
    widths = range(step_s, 86_401, step_s)
    width_s = next(width for width in widths if width >= _LEAST_STEP_S and 86_400 % width == 0)
    return ForecastSettings(step_s=width_s, horizons_s=tuple(float(width_s * lag) for lag in _HORIZONS))


def seen_from(now_s: float, outlook: Outlook, step_s: int) -> Outlook | None:
    """The same in demand per bin of `step_s`, its horizons counted from `now_s`; None: all of it has passed."""
    age_s = now_s - outlook.made_at
    ahead = bisect_right(outlook.horizons_s, age_s)
    if ahead == len(outlook.horizons_s):
        return None
    horizons = tuple(horizon_s - age_s for horizon_s in outlook.horizons_s[ahead:])
    values = tuple(tuple(step_s * value for value in row) for row in outlook.values[ahead:])
    return replace(outlook, made_at=now_s, horizons_s=horizons, values=values)
