"""A forecast as a value, apart from what makes it: who only reads it need not load the models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Forecast:
    """Demand to come."""

    made_at_s: int
    """Epoch seconds: the end of the newest bin that was read, from which horizons count."""
    step_s: int
    horizons_s: tuple[float, ...]
    """Ascending. The forecast of a horizon is for the bin that ends there (rounded up to whole bins)."""
    quantiles: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    """One row per horizon, one value per quantile: demand per bin of `step_s`. Finite, not negative, ascending."""
    model: str
    """Expert with the largest weight, over all horizons."""
    reason: str
    """Why that one, and what else is known."""
    score_ratio: float
    """Recent pinball loss against that of the day before at the same time; NaN until something has come true."""
    coverage: tuple[float, ...]
    """Share of truths at or below each quantile of late; NaN until something has come true."""
    trusted: bool
    trust_reason: str
