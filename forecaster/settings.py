"""What can be chosen about forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from forecaster.errors import ForecastError


@dataclass(frozen=True, slots=True)
class ForecastSettings:
    """One configuration serves all series; what differs between them is learned."""

    step_s: int = 300
    """Width of a bin. Five minutes: fine enough for the start-up of a replica, coarse enough to be no noise."""
    horizons_s: tuple[float, ...] = (300.0, 900.0, 1800.0, 3600.0)
    """How far ahead, ascending; rounded up to whole bins. From the quickest start-up to drain + start-up + payback."""
    quantiles: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99)
    """Which, ascending, within (0, 1)."""
    growth: float = 3.0
    """A forecast is at most this many times the largest demand of the last week: an explosion costs a bounded sum."""
    stale_s: float = 900.0
    """Data older than this (three bins) say too little about now: the forecast is given, and is not trusted."""
    under_cost: float = 9.0
    """Price of a unit of demand too little, against `over_cost`. Nine to one is the 0.9 quantile as newsvendor."""
    over_cost: float = 1.0
    """Price of a unit of capacity too much."""
    seed: int = 0
    """Of the trees' row sampling."""

    def __post_init__(self) -> None:
        checks = (
            ("step_s", self.step_s > 0 and 86_400 % self.step_s == 0, "a positive divisor of a day"),
            ("horizons_s", _ascending(self.horizons_s) and self.horizons_s[0] > 0, "ascending and positive"),
            ("horizons_s", self.horizons_s[-1:] <= (86_400.0,), "at most a day"),
            (
                "quantiles",
                _ascending(self.quantiles) and self.quantiles[0] > 0 and self.quantiles[-1] < 1,
                "ascending and within (0, 1)",
            ),
            ("growth", self.growth >= 1, "at least 1"),
            ("under_cost", self.under_cost > 0, "positive"),
            ("over_cost", self.over_cost > 0, "positive"),
        )
        for name, right, wanted in checks:
            if not right:
                raise ForecastError(f"{name} = {getattr(self, name)} must be {wanted}")

    @property
    def lags(self) -> tuple[int, ...]:
        """Horizons in bins; two that fall on one bin stay two."""
        return tuple(max(1, -int(-horizon_s // self.step_s)) for horizon_s in self.horizons_s)


def _ascending(values: tuple[float, ...]) -> bool:
    return len(values) > 0 and all(a < b for a, b in pairwise(values))
