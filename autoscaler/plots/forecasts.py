"""Forecasts as pictures: demand, bands of quantiles, known events, and how models compare. Times are UTC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from forecaster.backtest import DAILY, LAST, Backtest
from forecaster.events import Event
from forecaster.forecast import Forecast
from forecaster.series import Floats, Series

_DPI = 120
_SHOWN_DAYS = 1.0
"""History beside a forecast: the day's course, and an hour is still more than a hair."""
_BARS = 8
"""Models that are compared; with more, bars are too thin to tell."""


def draw_forecast(path: Path, series: Series, made: Forecast, events: Sequence[Event]) -> None:
    """The last days, and what is expected. `series` is in the bins of the forecast. Raises OSError, ValueError."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.add_subplot()
    recent = series.last(_SHOWN_DAYS * 86_400)
    axes.plot(_instants(_starts(recent)), recent.values, color="black", linewidth=0.9, label="demand")
    bins = np.ceil(np.array(made.horizons_s) / made.step_s)
    targets = _instants(made.made_at_s + (bins - 1.0) * made.step_s)
    _bands(axes, targets, np.array(made.values), made.quantiles, marker="o")
    first, last = recent.start_s, made.made_at_s + made.horizons_s[-1]
    for event in events:
        if event.end_s > first and event.start_s < last:
            edges = _instants(np.array([max(event.start_s, first), min(event.end_s, last)]))
            axes.axvspan(edges[0], edges[1], color="tab:orange", alpha=0.15, label=event.name or "known event")
    axes.set_title(f"{made.model}: {made.reason}", fontsize=9)
    _finish(axes, made.step_s)
    figure.savefig(path, dpi=_DPI)


def draw_backtest(path: Path, result: Backtest) -> None:
    """The scored days with the bands of the longest horizon, and losses of models by horizon."""
    grid = result.grid
    settings = grid.settings
    figure = Figure(figsize=(12, 9), layout="constrained")
    over, under = figure.subplots(2, 1, height_ratios=(3, 2))
    origins, lag = grid.origins, settings.lags[-1]
    first = int(origins[0])
    shown = Series(
        grid.series.start_s + first * settings.step_s,
        settings.step_s,
        grid.series.values[first : origins[-1] + lag + 1],
    )
    over.plot(_instants(_starts(shown)), shown.values, color="black", linewidth=0.7, label="demand")
    targets = _instants(grid.series.start_s + (origins + lag) * float(settings.step_s))
    _bands(over, targets, result.told[:, -1], settings.quantiles)
    over.set_title(f"forecast {settings.horizons_s[-1] / 60:g} min ahead", fontsize=10)
    _finish(over, settings.step_s)
    _losses(under, result)
    figure.savefig(path, dpi=_DPI)


def _losses(axes: Axes, result: Backtest) -> None:
    named = [result.scores[0], result.named(DAILY), result.named(LAST)]
    chosen = named + [one for one in result.scores[1:] if one not in named][: _BARS - len(named)]
    places = np.arange(len(result.grid.settings.lags))
    width = 0.8 / len(chosen)
    for index, one in enumerate(chosen):
        axes.bar(places + index * width, result.ratios(one), width, label=one.name)
    axes.set_xticks(places + 0.4 - width / 2, [f"{seconds / 60:g} min" for seconds in result.grid.settings.horizons_s])
    axes.set_ylabel("pinball loss / daily seasonal naive's")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bands(
    axes: Axes, at: NDArray[np.datetime64], values: Floats, quantiles: Sequence[float], marker: str = ""
) -> None:
    """Lines for the quantiles, and shades between neighbours; the darker the likelier."""
    middle = int(np.argmin(np.abs(np.array(quantiles) - 0.5)))
    for low in range(len(quantiles) - 1):
        shade = 0.45 / (1 + abs(low - middle) + (low < middle))
        label = f"{quantiles[low]:g} to {quantiles[low + 1]:g}"
        axes.fill_between(
            at, values[:, low], values[:, low + 1], color="tab:blue", alpha=shade, linewidth=0, label=label
        )
    axes.plot(at, values[:, middle], color="tab:blue", linewidth=0.9, marker=marker, markersize=3, label="median")


def _finish(axes: Axes, step_s: int) -> None:
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"demand per {step_s / 60:g} min")
    axes.set_xlabel("UTC")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)


def _starts(series: Series) -> Floats:
    return series.start_s + series.step_s * np.arange(len(series), dtype=np.float64)


def _instants(seconds: NDArray[np.floating[Any]]) -> NDArray[np.datetime64]:
    return np.asarray(np.rint(seconds), dtype=np.int64).astype("datetime64[s]")
