"""All horizons of one series, bin by bin: the memory of a forecast that goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecaster import boost, models, unrest
from forecaster.frame import Frame
from forecaster.lane import Lane
from forecaster.series import Floats

_DAY_S = 86_400
_CALIBRATE_S = 1_800
"""Quantiles of errors move slowly; half an hour of new ones among ten days changes nothing."""
_STACKS_A_DAY = 4
"""Refits of the weights; trees are grown anew once a day."""
KEEP_DAYS, SLACK_DAYS = 45, 15
"""Days of bins that are kept (they hold six of every weekday), and how many more before the oldest are dropped."""
_CATCHING_UP = 4
"""So many blocks a day or fewer are history that is caught up with, where refits may be as many times rarer."""


class Ensemble:
    """Forecasts of one series at fixed horizons. One writer; deterministic for given input and seed."""

    def __init__(
        self,
        step_s: int,
        lags: Sequence[int],
        levels: Sequence[float],
        offset: float,
        *,
        start_s: int = 0,
        seed: int = 0,
    ) -> None:
        """`lags`: horizons in bins; `levels`: ascending quantiles; `offset`: the mean demand known so far."""
        self.step_s = step_s
        self.lags = tuple(lags)
        self.levels = np.array(levels)
        day = max(1, round(_DAY_S / step_s))
        self.frame = Frame(day, offset, round(start_s % _DAY_S / step_s))
        self.lanes = tuple(Lane(lag, self.levels, day, seed) for lag in self.lags)
        self._calibrated = self._stacked = self._boosted = 0
        self._latest = np.zeros((len(self.lags), len(self.levels)))

    @property
    def latest(self) -> Floats:
        """Demand expected from the newest bin on: [lag, level]."""
        return self._latest

    def extend(self, demand: Floats, block: int) -> Floats:
        """Take in bins (NaN: lost) and forecast from each: demand [origin, lag, level].

        `block` bins at a time share one calibration; what comes out never depends on anything after its origin's block.
        """
        block = max(1, min(block, self.frame.day))
        out = [self._advance(demand[low : low + block]) for low in range(0, len(demand), block)]
        return np.concatenate(out) if out else np.empty((0, len(self.lags), len(self.levels)))

    def _advance(self, demand: Floats) -> Floats:
        self._refit(len(demand))
        frame = self.frame
        low = len(frame)
        frame.extend(demand)
        high = len(frame)
        rules = models.points(frame, self.lags, low, high)
        situation, restless = boost.situation(frame, low, high), unrest.restless(frame, low, high)
        told = [lane.extend(frame, rules[:, j], situation, restless, low, high) for j, lane in enumerate(self.lanes)]
        out = frame.demand(np.stack(told, 1))
        self._latest = out[-1]
        return out

    def _refit(self, block: int) -> None:
        frame, day = self.frame, self.frame.day
        count = len(frame)
        rarer = _CATCHING_UP if block * _CATCHING_UP >= day else 1
        if count - self._boosted >= rarer * day:
            self.fit_boost()
        if count - self._stacked >= rarer * day // _STACKS_A_DAY:
            self.fit_stack()
        if count - self._calibrated >= max(1, _CALIBRATE_S // self.step_s) or count < day:
            self._calibrated = count
            for lane in self.lanes:
                lane.calibrate(frame)
        if count >= (KEEP_DAYS + SLACK_DAYS) * day:
            self._forget(SLACK_DAYS * day)

    @property
    def faults(self) -> tuple[str, ...]:
        """What failed since the last refit and is left out, each once."""
        return tuple(sorted({fault for lane in self.lanes for fault in lane.faults.found}))

    def fit_stack(self) -> None:
        """Weigh rules and errors anew, now."""
        self._stacked = len(self.frame)
        for lane in self.lanes:
            lane.fit_stack(self.frame)

    def fit_boost(self) -> None:
        """Grow new trees, now."""
        self._boosted = len(self.frame)
        for lane in self.lanes:
            lane.fit_boost(self.frame)

    def _forget(self, count: int) -> None:
        self.frame.forget(count)
        for lane in self.lanes:
            lane.forget(count)
        self._calibrated -= count
        self._stacked -= count
        self._boosted -= count
