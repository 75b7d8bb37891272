"""Demand goes on as demand of this service usually goes on from here: an autoregression learned as it runs.

Logarithm of demand at the horizon, as a linear function of the present level and of how it differs from the levels of
the last minutes to half an hour: a direct multi-step forecast (one fit for the horizon that matters). The coefficients
come from recursive least squares with exponential forgetting (Haykin, Adaptive Filter Theory, ch. 10), whose
regularisation is the starting value of the inverse covariance: before anything is learned, demand stays as it is.
"""

from __future__ import annotations

from collections import deque
from math import log

from autoscaler.decide.spread import Lognormal, Spread, floor_rate

_LAGS_S = (60.0, 120.0, 240.0, 420.0, 600.0, 900.0, 1800.0)
"""Dense where the horizon is (start-ups of one to ten minutes), sparse beyond."""
_EVERY_S = 60.0
"""Between lessons; demand is a mean over a minute, so that more would be the same again."""
_FORGET = 0.99977
"""Per lesson: half of the weight is in the last two days, which hold a weekday's shape and forget last month's."""
_START = 0.5
"""Starting value of the inverse covariance. Small: some hundred lessons outweigh it."""
_MOST_STEP = 1.0
"""A prediction is never further than a factor of e from the present: what lies beyond is not momentum."""


class Momentum:
    """Learns a lesson a minute, expects at any tick."""

    def __init__(self) -> None:
        size = len(_LAGS_S) + 1
        self._weights = [0.0] * size
        self._inverse = [[_START if row == column else 0.0 for column in range(size)] for row in range(size)]
        self._history: deque[tuple[float, float]] = deque()
        self._waiting: deque[tuple[float, float, list[float]]] = deque()
        """Due instant, level then, features then."""
        self._lesson_at = -1e18
        self._features: list[float] | None = None
        self._spread = Spread()

    def observe(self, rate: float, now: float) -> None:
        level = log(floor_rate(rate))
        self._history.append((now, level))
        while self._history and self._history[0][0] < now - _LAGS_S[-1] - _EVERY_S:
            self._history.popleft()
        self._spread.actual(rate, now)
        self._features = self._look(level, now)
        lesson: tuple[float, float, list[float]] | None = None
        while self._waiting and self._waiting[0][0] <= now:
            lesson = self._waiting.popleft()
        if lesson is not None and now - lesson[0] < 2.0 * _EVERY_S:
            self._learn(lesson[2], level - lesson[1])

    def expect(self, now: float, ahead_s: float) -> Lognormal | None:
        if not self._history:
            return None
        level = self._history[-1][1]
        step = 0.0
        if self._features is not None:
            raw = sum(w * x for w, x in zip(self._weights, self._features, strict=True))
            step = min(_MOST_STEP, max(-_MOST_STEP, raw))
            if now - self._lesson_at >= _EVERY_S:
                self._lesson_at = now
                self._waiting.append((now + ahead_s, level, self._features))
        self._spread.predicted(level + step, now, ahead_s)
        return Lognormal(level + step, self._spread.sigma)

    def _look(self, level: float, now: float) -> list[float] | None:
        """Differences to the levels of some time ago; None while the past is too short."""
        history = self._history
        if not history or history[0][0] > now - _LAGS_S[-1]:
            return None
        found = [1.0]
        index = len(history) - 1
        for lag in _LAGS_S:
            at = now - lag
            while index > 0 and history[index][0] > at:
                index -= 1
            found.append(max(-3.0, min(3.0, level - history[index][1])))
        return found

    def _learn(self, x: list[float], y: float) -> None:
        y = max(-_MOST_STEP, min(_MOST_STEP, y))
        inverse = self._inverse
        px = [sum(a * b for a, b in zip(row, x, strict=True)) for row in inverse]
        scale = 1.0 / (_FORGET + sum(a * b for a, b in zip(x, px, strict=True)))
        error = y - sum(w * a for w, a in zip(self._weights, x, strict=True))
        self._weights = [w + scale * p * error for w, p in zip(self._weights, px, strict=True)]
        # Without excitation the inverse covariance grows without bound; a cap on its trace keeps it finite.
        grow = 1.0 / _FORGET if sum(inverse[i][i] for i in range(len(x))) < 10.0 * len(x) * _START else 1.0
        self._inverse = [
            [(value - scale * a * b) * grow for value, b in zip(row, px, strict=True)]
            for row, a in zip(inverse, px, strict=True)
        ]
