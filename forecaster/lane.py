"""One horizon: from the rules' points to calibrated quantiles, learning from every bin that comes true.

    rules -> points: stacked, boosted, both, ...; some corrected by how wrong they were at this time on earlier days
          -> experts: a point plus quantiles of its own errors of the last days, plain or scaled by the expected unrest
          -> mixture: experts weighed by how they did

All of it on the frame's scale; nothing after an origin is read for it.
"""

from __future__ import annotations

import numpy as np

from forecaster import boost, stack, unrest
from forecaster.faults import Faults
from forecaster.frame import Frame
from forecaster.models import RULES
from forecaster.record import Record
from forecaster.rows import Rows
from forecaster.series import Bools, Floats, Ints
from forecaster.weights import Weights

POINTS = ("stack", "boost", "both", "mean", "profile", "day", "median", "last", "both + clock", "stack + clock")
_PLAIN = ("day", "median", "stack", "boost", "last")
_SCALED = ("stack", "boost", "both", "mean", "profile", "both + clock", "stack + clock")
EXPERTS = (*(f"{name}, scaled" for name in _SCALED), *_PLAIN)
"""A point with a calibration."""
_POINT_OF = np.array([POINTS.index(name) for name in (*_SCALED, *_PLAIN)])
_IS_SCALED = np.array([True] * len(_SCALED) + [False] * len(_PLAIN))
_BOTH = POINTS.index("both")
_LAST, _DAY = EXPERTS.index("last"), EXPERTS.index("day")
_COPIED = {
    "profile": "profile 7d 15min 0.4",
    "day": "seasonal naive day",
    "median": "median 7 days",
    "last": "last value",
}
_COPIED_RULES = [RULES.index(rule) for rule in _COPIED.values()]

_STACK_DAYS, _BOOST_DAYS = 2, 3
"""History from which stacking and boosting pay."""
_HALF_LIFE_DAYS = 14.0
_BOOST_ROWS_DAYS = 28
"""Days of origins that trees are grown from: what bounds a refit to well under a second."""
_WINDOW_DAYS = 10
"""Days of errors that quantiles are read from: enough for the 0.99, and few enough to forget an old regime."""
_CLOCK_DAYS = 7
_CLOCK_FADES = 0.9 ** np.arange(1.0, _CLOCK_DAYS + 1.0)
_CLOCK_PRIOR = 2.0
"""Errors at this time of day: weights of the days, newest first, and of the assumption that there are none."""
_FEW = 200
"""Errors below which assumed ones join the observed."""
_ASSUMED = np.array([-2.0, -1.3, -1.0, -0.7, -0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 2.6])
"""Assumed errors: about normal, with the heavier upper end that demand has."""
_FIRST_STEP, _FIRST_STEPS = 0.15, 6
"""Deviation of a step that is assumed at first, and the number of observed steps that it counts as."""
_LEAST_SPREAD = 0.05
"""Least deviation that is assumed before there are errors: 5 % on the scale of the mean demand."""


class Lane:
    """State of one horizon, `lag` bins ahead, for quantile `levels`."""

    def __init__(self, lag: int, levels: Floats, day: int, seed: int) -> None:
        self.lag = lag
        self.levels = levels
        self.weights = Weights(len(EXPERTS), levels, day)
        self.record = Record(levels, day)
        self._day = day
        self._seed = seed
        self._rules = Rows(len(RULES))
        self._points = Rows(len(POINTS))
        self._residuals = Rows(len(POINTS))
        self._sizes = Rows(len(POINTS))
        self._recent = Rows(len(POINTS), len(unrest.ALPHAS))
        self._sigmas = Rows(len(POINTS))
        self._told = Rows(len(EXPERTS), len(levels))
        self._mixed = Rows(len(levels))
        self._told_first = 0
        """Origin of the first row of `_told` and `_mixed`, which keep only what has not come true."""
        self._offsets = np.zeros((len(EXPERTS), len(levels)))
        self._stack: Floats | None = None
        self._boost: boost.Boost | None = None
        self._scale: unrest.Scale | None = None
        self.faults = Faults()
        self._typical = np.full(len(POINTS), _LEAST_SPREAD)

    @property
    def points(self) -> Floats:
        """z of every point at every origin: [origin, POINTS]."""
        return self._points.all

    # ------------------------------------------------------------------ going on

    def extend(self, frame: Frame, rules: Floats, situation: Floats, restless: Floats, low: int, high: int) -> Floats:
        """Forecast from the new origins [low, high), less than a day of them, and learn from what they brought.

        Returns z quantiles [origin, level].
        """
        origins = np.arange(low, high)
        self._rules.append(rules)
        points = self._pointed(frame, rules, situation, origins)
        self._points.append(points)
        self._mature(frame, high)
        sigma = np.ones_like(points)
        if self._scale is not None:
            table = unrest.inputs(
                frame, self.lag, self._sizes.all, self._recent.all, self._points.all, restless, low, high
            )
            sigma = self._scale.of(table)
        self._sigmas.append(sigma)
        spread = np.where(_IS_SCALED, sigma[:, _POINT_OF], 1.0)[:, :, None] * self._offsets
        told = np.maximum.accumulate(points[:, _POINT_OF, None] + spread, 2)
        self._told.append(told)
        weights = self.weights.at(frame.phase(origins))
        mixed: Floats = np.maximum.accumulate((weights * told).sum(1), 1)
        self._mixed.append(mixed)
        self._learn(frame, high)
        return mixed

    def _pointed(self, frame: Frame, rules: Floats, situation: Floats, origins: Ints) -> Floats:
        mean = rules.mean(1)
        stacked = mean
        if (weights := self._stack) is not None:
            stacked = self.faults.predicted("stacking", lambda: stack.combine(rules, weights), mean)
        boosted = stacked
        if (grown := self._boost) is not None:
            phase = frame.phase(origins + self.lag)
            boosted = self.faults.predicted("boosting", lambda: grown.predict(rules, situation, phase), stacked)
            if "boosting" in self.faults:
                self._boost = None
        both = 0.5 * (stacked + boosted)
        points = [stacked, boosted, both, mean, *rules[:, _COPIED_RULES].T]
        points.append(both + self._clock(origins, _BOTH))
        points.append(stacked + self._clock(origins, POINTS.index("stack")))
        return np.stack(points, 1)

    def _clock(self, origins: Ints, point: int) -> Floats:
        """Mean error of a point at this time on earlier days, shrunk towards none."""
        known = len(self._residuals)
        if not known:
            return np.zeros(len(origins))
        index = origins[:, None] - self._day * np.arange(1, _CLOCK_DAYS + 1)
        errors = self._residuals.all[np.minimum(np.maximum(index, 0), known - 1), point]
        usable = (index >= unrest.WARM_DAYS * self._day) & (index < known) & np.isfinite(errors)
        total = np.where(usable, errors, 0.0) @ _CLOCK_FADES
        return np.asarray(total / (usable @ _CLOCK_FADES + _CLOCK_PRIOR))

    def _mature(self, frame: Frame, high: int) -> None:
        """Errors of origins whose target is known by now."""
        first, end = len(self._residuals), high - self.lag
        if end <= first:
            return
        targets = np.arange(first, end) + self.lag
        truth = np.where(frame.seen[targets], frame.z[targets], np.nan)
        residuals = truth[:, None] - self._points.all[first:end]
        sizes = unrest.log_size(residuals, self._typical)
        recent = unrest.averages(sizes, self._recent.all[-1] if first else None)
        self._residuals.append(residuals)
        self._sizes.append(sizes)
        self._recent.append(recent)

    def _learn(self, frame: Frame, high: int) -> None:
        end = high - self.lag
        count = end - self._told_first
        if count <= 0:
            return
        origins = np.arange(self._told_first, end)
        targets = origins + self.lag
        truth = np.where(frame.seen[targets], frame.demand(frame.z[targets]), np.nan)
        # No expert is punished without bound for an explosion: the guard would have capped it.
        most = np.log(20.0 * float(np.max(frame.demand(frame.z[: end + 1]))) + frame.offset)
        told = frame.demand(np.minimum(self._told.all[:count], most))
        mixed = frame.demand(np.minimum(self._mixed.all[:count], most))
        self.weights.learn(told, truth, frame.phase(origins))
        self.record.learn(np.stack([mixed, told[:, _LAST], told[:, _DAY]], 1), truth)
        self._told.forget(count)
        self._mixed.forget(count)
        self._told_first = end

    # ------------------------------------------------------------------ calibrating and fitting

    def calibrate(self, frame: Frame) -> None:
        """Read the quantiles of every expert's errors anew (split conformal: rank q (n + 1) of n errors)."""
        end = len(self._residuals)
        low = max(self._first(end), end - _WINDOW_DAYS * self._day)
        known = self._known(frame, low, end)
        residuals = self._residuals.all[low:end][known][:, _POINT_OF]
        errors = residuals / np.where(_IS_SCALED, self._sigmas.all[low:end][known][:, _POINT_OF], 1.0)
        if len(errors) < _FEW:
            assumed = self._assumed(frame) * _ASSUMED
            errors = np.concatenate([errors, np.repeat(assumed[:, None], len(EXPERTS), 1)])
        count = len(errors)
        levels = np.minimum(1.0, self.levels * (count + 1) / count)
        self._offsets = np.quantile(errors, levels, axis=0).T

    def _assumed(self, frame: Frame) -> float:
        """Deviation of errors at this horizon if demand were a random walk as restless as it was."""
        steps = np.diff(frame.z[-self._day :])
        prior = _FIRST_STEPS * _FIRST_STEP**2
        step = float(np.sqrt((prior + np.sum(steps**2)) / (_FIRST_STEPS + len(steps))))
        return max(_LEAST_SPREAD, step * float(np.sqrt(self.lag)))

    def fit_stack(self, frame: Frame) -> None:
        """Weigh the rules anew, and the expected size of errors."""
        rows = self._rows(frame, _STACK_DAYS)
        if rows is None:
            return
        truth = frame.z[rows + self.lag]
        age = (len(frame) - rows) / self._day
        past = self._rules.all[rows]
        weights = self.faults.fitted("stacking", lambda: stack.weigh(past, truth, age, _HALF_LIFE_DAYS))
        # The last weights are better than none.
        self._stack = self._stack if weights is None else weights
        self._fit_scale(frame)

    def fit_boost(self, frame: Frame) -> None:
        """Grow new trees."""
        rows = self._rows(frame, _BOOST_DAYS)
        if rows is None:
            return
        rows = rows[rows >= len(frame) - _BOOST_ROWS_DAYS * self._day]
        first = int(rows[0])
        situation = boost.situation(frame, first, len(frame))[rows - first]
        past, phase, truth = self._rules.all[rows], frame.phase(rows + self.lag), frame.z[rows + self.lag]
        self._boost = self.faults.fitted("boosting", lambda: boost.Boost.fit(past, situation, phase, truth, self._seed))

    def _fit_scale(self, frame: Frame) -> None:
        end = len(self._residuals)
        low = max(self._first(end), end - unrest.ROWS_DAYS * self._day)
        known = self._known(frame, low, end)
        if known.sum() < _FEW:
            return
        self._typical = np.median(np.abs(self._residuals.all[low:end][known]), 0) + 1e-9
        sizes = unrest.log_size(self._residuals.all, self._typical)
        self._sizes.all[:] = sizes
        self._recent.all[:] = unrest.averages(sizes, None)
        points = self._points.all
        restless = unrest.restless(frame, low, end)
        table = unrest.inputs(frame, self.lag, self._sizes.all, self._recent.all, points, restless, low, end)
        first = self._scale is None
        self._scale = unrest.fit(table[known], sizes[low:end][known])
        if first:
            # Errors of before are put on the same scale, or they would not compare.
            self._sigmas.all[low:end] = self._scale.of(table)

    def errors(self, count: int) -> Floats:
        """Errors of the `count` newest forecasts that came true, in typical errors; NaN where telemetry was lost."""
        low = max(0, len(self._residuals) - count)
        return np.asarray(self._residuals.all[low:, _BOTH] / self._typical[_BOTH])

    def _first(self, count: int) -> int:
        return min(unrest.WARM_DAYS * self._day, count // 2)

    def _known(self, frame: Frame, low: int, end: int) -> Bools:
        return frame.seen[low + self.lag : end + self.lag]

    def _rows(self, frame: Frame, days: int) -> Ints | None:
        """Origins to learn from; None if there is too little history."""
        end = len(frame) - self.lag
        if len(frame) < days * self._day:
            return None
        rows = np.arange(self._first(end), end)
        rows = rows[frame.seen[rows + self.lag]]
        return rows if len(rows) >= _FEW // 2 else None

    def forget(self, count: int) -> None:
        """Drop the first `count` origins, a whole number of days."""
        for rows in (self._rules, self._points, self._residuals, self._sizes, self._recent, self._sigmas):
            rows.forget(count)
        self._told_first -= count
