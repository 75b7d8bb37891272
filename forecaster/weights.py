"""Which experts to believe: weights that follow how they did lately, per quantile and per time of day.

A mixture of all by exp(-sharpness * (loss / best loss - 1)), as exponentially weighted averages do (Cesa-Bianchi and
Lugosi 2006), of losses that fade. It is close to the best expert where one stands out, and an average of all where none
does, which then is better than the best. Work that is scheduled starts at round times, and which expert knows that
shows only there: losses at the same time of earlier days join in.
"""

from __future__ import annotations

import numpy as np

from forecaster.series import Floats, Ints

_SHARPNESS = 15.0
"""An expert that loses 7 % more than the best has a third of its weight. At 60 the loss on eighteen
public series was 0.2 % larger."""
_HALF_LIFE_DAYS = 3.0
"""Long enough to see quiet and busy hours of several days, short enough to follow a change of habits."""
_CLOCK_WEIGHT = 12.0
"""The losses of one time of day count as much as the general ones once they were seen this often (fading included),
which at the half-life above they never quite are."""
_NONE = 1e-9
"""Of the mean loss: what counts as none."""
_LEAST = 10
"""Scored origins before weights leave the plain mean."""


class Weights:
    """Losses of experts at one horizon."""

    def __init__(self, experts: int, levels: Floats, day: int) -> None:
        self._levels = levels
        self._day = day
        self._sum = np.zeros((experts, len(levels)))
        self._count = 0.0
        self._clock_sum = np.zeros((day, experts, len(levels)))
        self._clock_count = np.zeros(day)

    @property
    def losses(self) -> Floats:
        """Recent mean pinball loss [expert, level] in units of demand; NaN before any."""
        return self._sum / self._count if self._count else np.full_like(self._sum, np.nan)

    def learn(self, forecasts: Floats, truth: Floats, phase: Ints) -> None:
        """Score forecasts [origin, expert, level] of demand, in order, less than a day of them; NaN: unknown."""
        known = np.isfinite(truth)
        forecasts, truth, phase = forecasts[known], truth[known], phase[known]
        if not len(truth):
            return
        error = truth[:, None, None] - forecasts
        loss = np.maximum(self._levels * error, (self._levels - 1.0) * error)
        fade = 0.5 ** (1.0 / (_HALF_LIFE_DAYS * self._day))
        each = fade ** np.arange(len(loss) - 1, -1, -1.0)
        self._sum = self._sum * fade ** len(loss) + np.tensordot(each, loss, 1)
        self._count = self._count * fade ** len(loss) + each.sum()
        daily = fade**self._day
        self._clock_sum[phase] = daily * self._clock_sum[phase] + loss
        self._clock_count[phase] = daily * self._clock_count[phase] + 1.0

    def at(self, phase: Ints) -> Floats:
        """[origin, expert, level], ones over the experts; `phase`: bin of the origin's day."""
        experts = len(self._sum)
        if self._count < _LEAST:
            return np.full((len(phase), *self._sum.shape), 1.0 / experts)
        general = _CLOCK_WEIGHT * self._sum / self._count
        count = self._clock_count[phase][:, None, None]
        loss = (self._clock_sum[phase] + general) / (count + _CLOCK_WEIGHT)
        best = loss.min(1, keepdims=True)
        # Early on differences are noise: trust grows with the root of what was seen.
        trust = min(1.0, float(np.sqrt(self._count / (_HALF_LIFE_DAYS * self._day))))
        # Relative to all losses, so that the unit of demand does not matter; and never by zero.
        least = best + _NONE * loss.mean(1, keepdims=True) + np.finfo(np.float64).tiny
        weights = np.exp(-_SHARPNESS * trust * (loss - best) / least)
        return np.asarray(weights / weights.sum(1, keepdims=True))
