"""By how much reality disagrees with the shadow pools, found from the misses that happen.

Stochastic approximation as in adaptive conformal inference (Gibbs and Candes 2021): each miss moves the margin up, each
stretch without moves it down, in proportion 1 to the objective. Whatever the demand, the long-run share of misses is
then the objective: over a time T it differs by at most (change of the margin) / (gain x T).
"""

from __future__ import annotations

from math import exp, isfinite

from autoscaler.decide.observation import Reading

_GAIN_PER_H = 3.0
"""Normal scores per hour in which everything misses. Ten minutes of that raise the margin by half a score; a day
without a miss at an objective of 1 % lowers it by 0.6. A score and a half over a week, as a bursty demand with slow
starts has taken, costs 0.3 points (1.07 % of misses instead of 0.85 %)."""
_MEAN_S = 86_400.0
"""Memory of mean demand: an hour of the night counts for as many requests as it has."""
_MOST = 3.0
_MOST_WEIGHT = 4.0
_LONGEST_S = 300.0
"""Counters that were away for longer say nothing about when their misses happened."""


class Correction:
    """An offset to the margin, in normal scores."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._offered: float | None = None
        self._missed = 0.0
        self._at = 0.0
        self._mean: float | None = None
        self.missing: bool | None = None
        """Whether anything missed since the last reading; None: not known."""
        self.share: float | None = None
        """Share of misses since the last reading."""
        self.came = 0.0
        """Requests since then."""

    def observe(self, reading: Reading, target: float, now: float) -> None:
        offered, missed = reading.get("offered_total"), reading.get("missed_total")
        self.missing = self.share = None
        self.came = 0.0
        if offered is None or missed is None:
            return
        before, self._offered = self._offered, offered
        missed_before, self._missed = self._missed, missed
        passed, self._at = now - self._at, now
        if before is None or offered < before or missed < missed_before or not 0.0 < passed <= _LONGEST_S:
            return
        came = offered - before
        if came <= 0.0:
            return
        self.came = came
        self.share = min(1.0, (missed - missed_before) / came)
        self.missing = missed > missed_before
        rate = came / passed
        self._mean = rate if self._mean is None else self._mean + (1.0 - exp(-passed / _MEAN_S)) * (rate - self._mean)
        weight = min(_MOST_WEIGHT, rate / self._mean)
        self.offset += _GAIN_PER_H * passed / 3600.0 * weight * (self.share - target)
        self.offset = min(_MOST, max(-_MOST, self.offset))

    def restore(self, offset: float) -> None:
        if isfinite(offset):
            self.offset = min(_MOST, max(-_MOST, offset))
