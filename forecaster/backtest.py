"""Rolling origin: what would have been forecast at each instant of the last days, from what was known then.

The system is driven as in production: a `Forecaster` gets the bins that had ended, and is asked. Every rule and every
part of the ensemble, and other models on request, get quantiles from their own errors at the same horizon (split
conformal), so that the comparison is one of points and not of how well somebody guessed the spread.

Bins of five minutes, or of the series if that is coarser; the last 45 days count. Scored are the last 10 days, or 5
of a series of 13 to 25 days, or 2.5 of a shorter one; the days before them are where quantiles come from at first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from forecaster.errors import ForecastError
from forecaster.forecast import Forecaster
from forecaster.frame import Frame
from forecaster.lane import POINTS
from forecaster.model import Model
from forecaster.models import MODELS
from forecaster.scoring import Score, conformal, geometric, score
from forecaster.series import Bools, Floats, Ints, Series
from forecaster.settings import ForecastSettings

SYSTEM = "system"
"""Name and kind of the system's own forecast."""
DAILY, LAST = "seasonal naive day", "last value"
"""The rules that all is measured against."""
_DAY_S = 86_400
_BIN_S = 300
_KEPT_DAYS = 45
_LONG, _MIDDLE, _SHORT = (25.0, 10.0, 5.0), (13.0, 5.0, 2.0), (0.0, 2.5, 1.5)
"""From how many days on, how many are scored, and how many before them are for first errors."""
_PARTS = ("stack", "boost", "both", "mean")
"""Points of the ensemble that are no rule."""

Progress = Callable[[str, float], None]
"""What is being done, and which share of it is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be backtested."""

    bin_s: int | None = None
    """Width of a bin; None: five minutes, or the widest multiple of the series' own step below, or that step."""
    horizons_s: tuple[float, ...] = (300.0, 900.0, 1800.0, 3600.0)
    quantiles: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99)
    stride_s: int = 1800
    """Between scored origins."""
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Bins, and which of them are scored."""

    series: Series
    """In bins, the last days of it, NaN where telemetry was lost."""
    settings: ForecastSettings
    first: int
    """First origin from which errors are counted."""
    origins: Ints
    """Scored origins: each is the last bin that may be read."""

    @property
    def day(self) -> int:
        return _DAY_S // self.series.step_s

    @property
    def seen(self) -> Bools:
        return np.isfinite(self.series.values)

    @property
    def filled(self) -> Floats:
        """Demand with the last known value where telemetry was lost; before the first, the first."""
        values = self.series.values
        known = np.flatnonzero(self.seen)
        at = np.maximum.accumulate(np.where(self.seen, np.arange(len(values)), known[0]))
        return np.asarray(values[at])

    @property
    def truth(self) -> Floats:
        """[origin, lag]: what came, NaN where it is not known."""
        return np.asarray(self.series.values[self.origins[:, None] + np.array(self.settings.lags)])

    def instant_s(self, origin: int) -> int:
        """When the forecast is made: the end of the bin."""
        return self.series.start_s + (origin + 1) * self.series.step_s

    def target_s(self, origin: int, lag: int) -> int:
        """Start of the bin that is forecast."""
        return self.series.start_s + (origin + lag) * self.series.step_s


@dataclass(frozen=True, slots=True, eq=False)
class Backtest:
    """What came of it."""

    grid: Grid
    told: Floats
    """The system's own quantiles of demand per bin: [origin, lag, level]."""
    trusted_ratio: float
    """Share of origins at which the trust gate was open."""
    scores: tuple[Score, ...]
    """The system's first, then by mean loss."""

    def ratios(self, one: Score, to: str = DAILY) -> Floats:
        """Loss by horizon over the loss of another, as a rule of the daily seasonal naive."""
        other = np.array(self.named(to).loss)
        return np.array(one.loss) / np.where(other > 0, other, np.nan)

    def ratio(self, one: Score) -> float:
        """Geometric mean of `ratios` over the horizons."""
        return geometric(self.ratios(one))

    def to_better_naive(self, one: Score) -> float:
        """Mean loss over the smaller mean loss of last value and daily seasonal naive."""
        naive = min(float(np.mean(self.named(name).loss)) for name in (DAILY, LAST))
        return float(np.mean(one.loss)) / naive if naive > 0 else float("nan")

    def named(self, name: str) -> Score:
        return next(one for one in self.scores if one.name == name)

    def rows(self) -> Iterator[tuple[int, int, float, float]]:
        """(origin, target, quantile, value) of the system; instants in epoch seconds, demand per bin."""
        settings = self.grid.settings
        for k, origin in enumerate(self.grid.origins.tolist()):
            for j, lag in enumerate(settings.lags):
                for m, level in enumerate(settings.quantiles):
                    instant_s, target_s = self.grid.instant_s(origin), self.grid.target_s(origin, lag)
                    yield instant_s, target_s, level, float(self.told[k, j, m])


def grid_of(series: Series, asked: Asked) -> Grid:
    """Bins and scored origins. Raises ForecastError if the series is too short or the wishes do not fit it."""
    step_s = asked.bin_s or max(1, _BIN_S // series.step_s) * series.step_s
    if step_s % series.step_s:
        raise ForecastError(f"bins of {step_s} s do not fit a series in steps of {series.step_s} s: take a multiple")
    settings = ForecastSettings(
        step_s=step_s, horizons_s=asked.horizons_s, quantiles=asked.quantiles, seed=asked.seed, stale_s=3.0 * step_s
    )
    binned = series.binned(step_s).last(_KEPT_DAYS * _DAY_S)
    day = _DAY_S // step_s
    span = len(binned) / day
    _, scored, before = next(rule for rule in (_LONG, _MIDDLE, _SHORT) if span >= rule[0])
    test, first = int(len(binned) - scored * day), int(len(binned) - (scored + before) * day)
    if first < 1:
        raise ForecastError(f"the series spans {span:.1f} days; more than {_SHORT[1] + _SHORT[2]:g} are needed")
    if asked.stride_s < 1:
        raise ForecastError(f"stride = {asked.stride_s} s must be positive")
    origins = np.arange(test, len(binned) - max(settings.lags), max(1, asked.stride_s // step_s))
    if not len(origins):
        raise ForecastError(f"the longest horizon, {settings.horizons_s[-1]:g} s, leaves no instant to forecast from")
    grid = Grid(binned, settings, first, origins)
    if not grid.seen[:first].any():
        raise ForecastError("nothing is known before the days that are scored")
    return grid


def run(
    series: Series,
    asked: Asked | None = None,
    classics: Mapping[str, Model] | None = None,
    progress: Progress = lambda part, share: None,
) -> Backtest:
    """Everything on one series. `classics`: further models, by name. Deterministic. Raises ForecastError."""
    grid = grid_of(series, asked or Asked())
    settings = grid.settings
    told, parts, trusted = _system(grid, progress)
    levels = np.array(settings.quantiles)
    # Kept as ratios of the mean of what was known before the first error is counted.
    offset = float(np.mean(grid.filled[: grid.first])) + 1e-9
    frame = Frame(grid.day, offset, round(grid.series.start_s % _DAY_S / settings.step_s))
    frame.extend(grid.filled)
    scores = [score(SYSTEM, SYSTEM, told, grid.truth, levels)]
    scores += _scores(grid, frame, _PARTS, "expert", np.log(parts + offset), progress)
    end = len(frame) - max(settings.lags)
    for kind, models in (("rule", MODELS), ("classic", classics or {})):
        for name, model in models.items():
            points = _points(grid, frame, model, end, partial(progress, name))
            scores += _scores(grid, frame, model.names, kind, points, progress)
    ranked = sorted(scores[1:], key=lambda one: float(np.mean(one.loss)))
    return Backtest(grid, told, trusted, (scores[0], *ranked))


def _system(grid: Grid, progress: Progress) -> tuple[Floats, Floats, float]:
    """Quantiles [origin, lag, level] of the system, points [origin from `first` on, lag, part], and the open share."""
    forecaster = Forecaster(grid.settings)
    series, settings = grid.series, grid.settings
    count = len(series) - max(settings.lags)
    parts = np.full((count, len(settings.lags), len(_PARTS)), np.nan)
    told, trusted, before = [], 0, 0
    for k, origin in enumerate(grid.origins.tolist()):
        progress(SYSTEM, k / len(grid.origins))
        forecaster.observe(replace(series, values=series.values[: origin + 1]))
        made = forecaster.forecast(grid.instant_s(origin))
        assert made is not None  # some bin before the scored days is known
        told.append(made.values)
        trusted += made.trusted
        fresh = _newest(forecaster, origin + 1 - before)
        parts[origin + 1 - len(fresh) : origin + 1] = fresh
        before = origin + 1
    # Origins before the first known bin have no point; their targets are not known either, or the first that is.
    filled = np.where(np.isfinite(parts), parts, grid.filled[:count, None, None])
    return np.array(told), filled[grid.first :], trusted / len(grid.origins)


def _newest(forecaster: Forecaster, count: int) -> Floats:
    """Points of the ensemble's parts at the newest origins: demand [origin, lag, part]."""
    ensemble = forecaster.ensemble
    assert ensemble is not None
    picked = [POINTS.index(name) for name in _PARTS]
    points = np.stack([lane.points[-count:, picked] for lane in ensemble.lanes], 1)
    return ensemble.frame.demand(points)


def _points(grid: Grid, frame: Frame, model: Model, end: int, progress: Callable[[float], None]) -> Floats:
    """Points [origin from `first` on, lag, rule] of a model, day by day."""
    out = []
    for low in range(grid.first, end, grid.day):
        progress((low - grid.first) / (end - grid.first))
        out.append(model.points(frame, grid.settings.lags, low, min(low + grid.day, end)))
    return np.concatenate(out)


def _scores(
    grid: Grid, frame: Frame, names: tuple[str, ...], kind: str, points: Floats, progress: Progress
) -> list[Score]:
    """Give points [origin from `first` on, lag, model] quantiles, and score them."""
    levels, rows = np.array(grid.settings.quantiles), grid.origins - grid.first
    told = np.empty((len(rows), len(grid.settings.lags), len(names), len(levels)))
    offset = frame.offset
    for j, lag in enumerate(grid.settings.lags):
        progress(f"quantiles of {kind}s", j / len(grid.settings.lags))
        targets = np.arange(grid.first, grid.first + len(points)) + lag
        truth = np.where(grid.seen[targets], frame.z[targets], np.nan)
        z = conformal(points[:, j], truth[:, None] - points[:, j], rows, lag, grid.day, levels)
        told[:, j] = np.maximum(np.exp(z) - offset, 0.0)
    return [score(name, kind, told[:, :, m], grid.truth, levels) for m, name in enumerate(names)]
