"""The one entry: series of demand in, quantiles of what comes out, with the reason to believe them or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from forecaster.drift import Drift
from forecaster.ensemble import KEEP_DAYS, SLACK_DAYS, Ensemble
from forecaster.events import Event, factors
from forecaster.guard import bounded, recent_peak, usable
from forecaster.lane import EXPERTS
from forecaster.quantiles import Forecast as Forecast
from forecaster.series import Floats, Series
from forecaster.settings import ForecastSettings
from forecaster.trust import Change, Gate

_LIVE_BLOCK_S = 1_800
"""Bins that are taken in together while catching up with the last days; as often are quantiles calibrated."""
_CAREFUL_DAYS = 12
"""Days at the end of a long history that are gone through as if live: what errors are read from, and a margin."""
_REBASE = 4.0
"""Demand this many times off the scale it was first seen on has outgrown it: history is gone through again."""
_LEAST_EVENT = 0.05
"""Where an event leaves less of demand, nothing can be learned of what it would have been."""
_LEAST, _MOST = 1e-100, 1e100
"""Demand beyond is a mistake in the numbers; so bounded, sums and ratios stay finite."""
_SPIKE = 100.0
"""Times the 0.99 quantile: one poisoned bin must not be the measure of all others."""
_HASTE_S = 7_200.0
"""At most one refit out of turn in this time."""


class Forecaster:
    """The memory of one series. Feed it whole or in parts; the same bins are read once. One writer, no clock."""

    def __init__(self, settings: ForecastSettings) -> None:
        self.settings = settings
        self._ensemble: Ensemble | None = None
        self._gate = Gate()
        self._drift = Drift()
        self._start_s = 0
        self._end_s = 0
        self._history: Floats = np.empty(0)
        self._haste_until_s = 0
        self._shift = ""

    @property
    def ensemble(self) -> Ensemble | None:
        """What has been learned; None before the first known bin."""
        return self._ensemble

    def observe(self, series: Series, events: Sequence[Event] = ()) -> list[Change]:
        """Learn from the bins that are new. `series` may be finer than `step_s`, and must reach back to where the last
        one ended (what lies between is lost telemetry otherwise). Returns how the gate moved."""
        coarse = _aligned(series, self.settings.step_s)
        fresh = self._fresh(coarse)
        if not len(fresh):
            return []
        fresh = np.minimum(fresh, _MOST)
        self._history = np.concatenate([self._history, fresh])
        start_s = self._end_s
        self._end_s += len(fresh) * self.settings.step_s
        self._forget()
        if self._ensemble is None or self._outgrown():
            self._begin(events)
        else:
            self._ensemble.extend(self._calm(fresh, start_s, events), self._block(len(fresh)))
        self._watch(len(fresh))
        return self._judge()

    def forecast(self, now_s: float, events: Sequence[Event] = ()) -> Forecast | None:
        """Demand from `now_s` (epoch seconds) on; None while there is no known bin at all."""
        if self._ensemble is None:
            return None
        settings = self.settings
        values = self._ensemble.latest
        lags = np.array(settings.lags)
        last = int(lags.max())
        low, high = factors(events, self._end_s, settings.step_s, last)
        level = np.array(settings.quantiles)
        share = low[lags - 1][:, None] + (high - low)[lags - 1][:, None] * level
        peak = recent_peak(self._history, settings.step_s)
        values, problem = usable(values, peak)
        values = bounded(values * share, settings.growth * peak * np.maximum(1.0, share))
        doubt = problem or self._doubt(now_s)
        name, why = self._best()
        made = Forecast(
            self._end_s,
            settings.step_s,
            settings.horizons_s,
            settings.quantiles,
            tuple(tuple(float(value) for value in row) for row in values),
            name,
            why,
            self._score_ratio(),
            tuple(float(value) for value in self._coverage()),
            self._gate.trusted,
            self._gate.reason,
        )
        return replace(made, trusted=False, trust_reason=doubt) if doubt else made

    # ------------------------------------------------------------------ taking in

    def _calm(self, demand: Floats, start_s: int, events: Sequence[Event]) -> Floats:
        """Demand as it would have been without events; NaN where they left next to nothing that could tell."""
        low, high = factors(events, start_s, self.settings.step_s, len(demand))
        share = (low + high) / 2
        return np.where(share < _LEAST_EVENT, np.nan, demand / np.maximum(share, _LEAST_EVENT))

    def _forget(self) -> None:
        """Bound the memory: months ago do not help."""
        days = len(self._history) * self.settings.step_s // 86_400
        if days >= KEEP_DAYS + SLACK_DAYS:
            drop = (days - KEEP_DAYS) * 86_400 // self.settings.step_s
            self._history = self._history[drop:].copy()
            self._start_s += drop * self.settings.step_s

    def _fresh(self, coarse: Series) -> Floats:
        """Bins past those that are known, with lost ones for a hole in between; at first, from the first known bin."""
        values = coarse.values
        if self._ensemble is None and not len(self._history):
            known = np.flatnonzero(np.isfinite(values))
            if not len(known):
                return np.empty(0)
            self._start_s = self._end_s = coarse.start_s + int(known[0]) * coarse.step_s
            return np.asarray(values[known[0] :])
        skip = (self._end_s - coarse.start_s) // coarse.step_s
        if skip >= 0:
            return np.asarray(values[skip:])
        if -skip * coarse.step_s >= KEEP_DAYS * 86_400:
            # After so long a silence nothing that was known is kept anyway.
            self._ensemble, self._history = None, np.empty(0)
            return self._fresh(coarse)
        return np.concatenate([np.full(-skip, np.nan), values])

    def _begin(self, events: Sequence[Event]) -> None:
        """Go through the history from its start, the last days as if live."""
        settings = self.settings
        day = 86_400 // settings.step_s
        calm = self._calm(self._history, self._start_s, events)
        offset, lately = _usual(calm), _usual(calm[-self._week :])
        if lately and (self._ensemble is not None or not _near(lately, offset)):
            offset = lately
        self._ensemble = Ensemble(
            settings.step_s,
            settings.lags,
            settings.quantiles,
            offset or 1.0,
            start_s=self._start_s,
            seed=settings.seed,
        )
        early = max(0, len(calm) - _CAREFUL_DAYS * day)
        self._ensemble.extend(calm[:early], max(1, day // 4))
        self._ensemble.extend(calm[early:], self._block(len(calm)))

    def _block(self, count: int) -> int:
        return min(count, max(1, _LIVE_BLOCK_S // self.settings.step_s))

    def _outgrown(self) -> bool:
        assert self._ensemble is not None
        lately = _usual(self._history[-self._week :])
        return lately > 0 and not _near(lately, self._ensemble.frame.offset)

    @property
    def _week(self) -> int:
        return 7 * 86_400 // self.settings.step_s

    # ------------------------------------------------------------------ judging

    def _watch(self, count: int) -> None:
        """Look at the errors of the newest `count` bins, of the last hours if it is more."""
        assert self._ensemble is not None
        way = None
        for error in self._ensemble.lanes[0].errors(min(count, max(1, int(_HASTE_S // self.settings.step_s)))):
            if np.isfinite(error):
                way = self._drift.observe(float(error)) or way
        if way is not None and self._end_s >= self._haste_until_s:
            self._haste_until_s = self._end_s + int(_HASTE_S)
            self._ensemble.fit_stack()
            self._shift = f"; demand left its level ({way}wards), weights were learned anew"
        elif self._end_s >= self._haste_until_s:
            self._shift = ""

    def _judge(self) -> list[Change]:
        assert self._ensemble is not None
        settings = self.settings
        wanted = settings.under_cost / (settings.under_cost + settings.over_cost)
        level = int(np.argmin(np.abs(np.array(settings.quantiles) - wanted)))
        losses = np.mean([lane.record.losses[:2, level] for lane in self._ensemble.lanes], 0)
        scored = min(lane.record.scored for lane in self._ensemble.lanes)
        change = self._gate.judge(float(losses[0]), float(losses[1]), scored)
        return [change] if change is not None else []

    def _doubt(self, now_s: float) -> str:
        age_s = now_s - self._end_s
        if not age_s <= self.settings.stale_s:
            return f"the newest data are {age_s:.0f} s old"
        hour = self._history[-max(1, 3_600 // self.settings.step_s) :]
        if 2 * np.isnan(hour).sum() > len(hour):
            return "most of the last hour's telemetry is lost"
        return ""

    def _best(self) -> tuple[str, str]:
        assert self._ensemble is not None
        frame = self._ensemble.frame
        phase = np.array([(len(frame) - 1 + frame.first_phase) % frame.day])
        shares = np.mean([lane.weights.at(phase)[0].mean(1) for lane in self._ensemble.lanes], 0)
        best = int(np.argmax(shares))
        days = len(self._history) * self.settings.step_s / 86_400
        why = f"{100 * shares[best]:.0f} % of a mixture of {len(EXPERTS)}, by its losses of late, on {days:.1f} days"
        return EXPERTS[best], why + self._shift + "".join(f"; {fault}" for fault in self._ensemble.faults)

    def _score_ratio(self) -> float:
        assert self._ensemble is not None
        losses = np.mean([lane.record.losses.mean(1) for lane in self._ensemble.lanes], 0)
        return float(losses[0] / losses[2]) if losses[2] > 0 else float("nan")

    def _coverage(self) -> Floats:
        assert self._ensemble is not None
        return np.asarray(np.mean([lane.record.coverage for lane in self._ensemble.lanes], 0))


def forecast(
    series: Series, settings: ForecastSettings | None = None, *, now_s: float, events: Sequence[Event] = ()
) -> Forecast | None:
    """The forecast at `now_s` from all that had ended by then; None if no bin is known. Deterministic."""
    made = Forecaster(settings or ForecastSettings())
    made.observe(series.before(now_s), events)
    return made.forecast(now_s, events)


def _aligned(series: Series, step_s: int) -> Series:
    """In bins of `step_s` on the grid of the epoch, so that parts that begin anywhere agree."""
    if series.step_s == step_s:
        return series
    skip = -series.start_s % step_s // series.step_s if step_s % series.step_s == 0 else 0
    return Series(series.start_s + skip * series.step_s, series.step_s, series.values[skip:]).binned(step_s)


def _usual(demand: Floats) -> float:
    """Mean of what is known, 0 if that is nothing; what is far beyond the 0.99 quantile counts as that."""
    known = demand[np.isfinite(demand)]
    if not len(known):
        return 0.0
    most = _SPIKE * float(np.quantile(known, 0.99, method="lower"))
    usual = float(np.minimum(known, most if most > 0 else _MOST).mean())
    return usual if usual > _LEAST else 0.0


def _near(one: float, other: float) -> bool:
    return other > 0 and 1 / _REBASE <= one / other <= _REBASE
