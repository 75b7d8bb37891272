"""The forecaster of production, as the plant asks it."""

from __future__ import annotations

from autoscaler.decide.outlook import Outlook
from forecaster.forecast import Forecast, Forecaster
from forecaster.series import Series
from forecaster.settings import ForecastSettings

_HORIZONS = (1, 2, 3, 6, 12)
"""In bins, of five minutes or the series' own: to an hour or two, past any start-up, drain and payback."""
_LEAST_STEP_S = 300


class Foresight:
    """Forecasts of one series, asked in the order of time. Values are per bin of the series."""

    def __init__(self, settings: ForecastSettings | None = None) -> None:
        self._settings = settings
        self._forecaster: Forecaster | None = None
        self._end_s = 0

    def __call__(self, past: Series, now_s: float) -> Outlook | None:
        """The forecast at `now_s` from the bins that were over."""
        if self._forecaster is None:
            settings = self._settings or settings_for(past.step_s)
            self._forecaster = Forecaster(settings)
        if past.end_s > self._end_s:
            self._end_s = past.end_s
            self._forecaster.observe(past)
        made = self._forecaster.forecast(now_s)
        return None if made is None else outlook_of(made, past.step_s, now_s)


def can_forecast(step_s: int) -> bool:
    """Whether bins of this width fit into a day, which forecasts count in."""
    return 86_400 % step_s == 0


def settings_for(step_s: int) -> ForecastSettings:
    """Bins of five minutes, or the next width that a day and the series' bins fit into. `step_s` divides a day."""
    widths = range(step_s, 86_401, step_s)
    width_s = next(width for width in widths if width >= _LEAST_STEP_S and 86_400 % width == 0)
    return ForecastSettings(step_s=width_s, horizons_s=tuple(float(width_s * lag) for lag in _HORIZONS))


def outlook_of(made: Forecast, step_s: int, now_s: float) -> Outlook | None:
    """As the controller reads it, in demand per `step_s`: a bin's forecast stands for the bin's middle. None: all of it
    has passed. `made_at` is left to the caller, horizons count from `now_s`."""
    middles = [made.made_at_s + horizon_s - made.step_s / 2 - now_s for horizon_s in made.horizons_s]
    share = step_s / made.step_s
    rows = [
        (middle, tuple(share * value for value in row))
        for middle, row in zip(middles, made.values, strict=True)
        if middle > 0
    ]
    if not rows:
        return None
    horizons = tuple(middle for middle, _ in rows)
    values = tuple(row for _, row in rows)
    return Outlook(now_s, horizons, made.quantiles, values, made.trusted, made.trust_reason, made.model)
