"""Settings of the forecasts that the controller reads, and of the process that makes them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from forecaster.settings import ForecastSettings
from lb.settings.durations import Bytes, Seconds
from lb.settings.proxy import Section

_MINUTE_S = 60
_DAY_S = 86_400
_STALE_BINS = 3
"""Bins that may be missing before a forecast says too little about now."""

Horizon = Annotated[Seconds, Field(gt=0, le=_DAY_S)]
Quantile = Annotated[float, Field(gt=0, lt=1)]


class ForecastingSettings(Section):
    """Demand ahead of time, by pool: quantiles of what will be offered, learned from what was."""

    enabled: bool = True
    """Off: nothing is forecast, and pools follow what is measured."""
    bin_s: Annotated[Seconds, Field(gt=0, le=_DAY_S)] = 300.0
    """Width of the bins that demand is counted in. Five minutes: fine enough for the start of a replica, coarse enough
    to be no noise."""
    horizons_s: Annotated[tuple[Horizon, ...], Field(min_length=1, max_length=12)] = (300.0, 900.0, 1800.0, 3600.0)
    """How far ahead, ascending; rounded up to whole bins. From the quickest start to start + drain + payback; each
    takes its share of the time of a fit."""
    quantiles: Annotated[tuple[Quantile, ...], Field(min_length=1, max_length=12)] = (0.5, 0.9, 0.95, 0.99)
    """Which, ascending. The middle, and what is provisioned for; between and beyond them a normal tail is taken."""
    growth: Annotated[float, Field(ge=1)] = 3.0
    """A forecast is at most this many times the highest demand of the last week: an explosion costs a bounded sum."""
    stale_s: Annotated[Seconds, Field(gt=0)] | None = None
    """A forecast from data older than this is not trusted. None: three bins."""
    under: Annotated[float, Field(gt=0)] = 9.0
    """Price of a unit of demand too little, against `over`: what a forecast is judged by against the last value before
    it may act. Nine to one is the 0.9 quantile."""
    over: Annotated[float, Field(gt=0)] = 1.0
    """Price of a unit of capacity too much."""
    time_s: Annotated[Seconds, Field(ge=1, le=600)] = 20.0
    """For one pool's new bins, with a refit if it is due; usually 5 ms, a refit half a second. What takes longer has
    gone astray: the process that computes is ended and begun anew."""
    begin_s: Annotated[Seconds, Field(ge=1, le=7200)] = 600.0
    """For going through one pool's history after a start; 45 days of five-minute bins take 25 s of an idle core, and
    the process that computes gets what others leave."""
    memory_bytes: Annotated[Bytes, Field(ge=512 << 20)] = 2 << 30
    """Of the process that computes: 150 MiB, and up to 80 MiB a pool."""

    @field_validator("bin_s")
    @classmethod
    def _on_the_clock(cls, bin_s: float) -> float:
        if bin_s % _MINUTE_S or _DAY_S % bin_s:
            raise ValueError(f"{bin_s:g}s must be whole minutes that divide a day, such as 1m, 5m, 15m or 1h")
        return bin_s

    @field_validator("horizons_s", "quantiles")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for before, after in pairwise(values):
            if not before < after:
                raise ValueError(f"must be ascending, and {after:g} comes after {before:g}")
        return values

    @model_validator(mode="after")
    def _fresh(self) -> ForecastingSettings:
        if self.stale_s is not None and self.stale_s < 2 * self.bin_s:
            raise ValueError(
                f"stale = {self.stale_s:g}s must be at least two bins ({2 * self.bin_s:g}s): at the end of a bin the "
                "newest data are one bin old"
            )
        return self

    def forecaster(self) -> ForecastSettings:
        """As the forecaster takes them."""
        return ForecastSettings(
            step_s=int(self.bin_s),
            horizons_s=self.horizons_s,
            quantiles=self.quantiles,
            growth=self.growth,
            stale_s=_STALE_BINS * self.bin_s if self.stale_s is None else self.stale_s,
            under_cost=self.under,
            over_cost=self.over,
        )
