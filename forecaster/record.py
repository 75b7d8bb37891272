"""How forecasts did of late: losses and coverage, fading."""

from __future__ import annotations

import numpy as np

from forecaster.series import Floats

_LOSS_DAYS = 1.0
"""Half-life of losses: the gate must close on the day on which a forecast goes wrong."""
_COVERAGE_DAYS = 7.0
"""Half-life of coverage: a 0.99 quantile needs days to show whether it holds."""


class Record:
    """Pinball losses of the system, the last value and the day before, and what the system's quantiles covered."""

    def __init__(self, levels: Floats, day: int) -> None:
        self._levels = levels
        self._fade = 0.5 ** (1.0 / (_LOSS_DAYS * day))
        self._fade_coverage = 0.5 ** (1.0 / (_COVERAGE_DAYS * day))
        self._losses = np.zeros((3, len(levels)))
        self._count = 0.0
        self._covered = np.zeros(len(levels))
        self._coverage_count = 0.0
        self.scored = 0
        """Forecasts that came true, in all."""

    def learn(self, forecasts: Floats, truth: Floats) -> None:
        """`forecasts`: [origin, (system, last value, day before), level]; `truth`: [origin], NaN where not known."""
        known = np.isfinite(truth)
        forecasts, truth = forecasts[known], truth[known]
        count = len(truth)
        if not count:
            return
        error = truth[:, None, None] - forecasts
        loss = np.maximum(self._levels * error, (self._levels - 1.0) * error)
        each = self._fade ** np.arange(count - 1, -1, -1.0)
        self._losses = self._losses * self._fade**count + np.tensordot(each, loss, 1)
        self._count = self._count * self._fade**count + each.sum()
        each = self._fade_coverage ** np.arange(count - 1, -1, -1.0)
        self._covered = self._covered * self._fade_coverage**count + each @ (error[:, 0] <= 0)
        self._coverage_count = self._coverage_count * self._fade_coverage**count + each.sum()
        self.scored += count

    @property
    def losses(self) -> Floats:
        """Mean loss [(system, last value, day before), level] in units of demand; NaN before any."""
        return self._losses / self._count if self._count else np.full_like(self._losses, np.nan)

    @property
    def coverage(self) -> Floats:
        """Share of truths at or below each quantile; NaN before any."""
        count = self._coverage_count
        return self._covered / count if count else np.full_like(self._covered, np.nan)
