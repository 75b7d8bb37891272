"""What `backtest` shows and writes: progress, the table, JSON, forecasts, a picture."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from autoscaler.commands.series_options import writing
from forecaster.backtest import DAILY, LAST, SYSTEM, Backtest
from forecaster.scoring import Score

_RULES_SHOWN = 8
"""Rules in the table besides the naive ones; there are dozens, and JSON has them all."""
_WIDTH = 140


class Watch(AbstractContextManager["Watch"]):
    """A bar per part on standard error, and the CPU time of each."""

    def __init__(self) -> None:
        title = TextColumn("{task.description:24s}")
        columns = (SpinnerColumn(), title, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task: TaskID | None = None
        self._part = ""
        self._since_s = time.process_time()
        self.cpu_s: dict[str, float] = {}
        """By part."""

    def __enter__(self) -> Watch:
        self._progress.start()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._book()
        self._progress.stop()

    def tell(self, part: str, share: float) -> None:
        """A share of a part is done."""
        if part != self._part:
            self._book()
            self._part = part
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(part, total=1.0)
        if self._task is not None:
            self._progress.update(self._task, completed=share)

    def _book(self) -> None:
        now_s = time.process_time()
        if self._part:
            self.cpu_s[self._part] = self.cpu_s.get(self._part, 0.0) + now_s - self._since_s
        self._since_s = now_s


def show(result: Backtest, cpu_s: Mapping[str, float]) -> None:
    """The table, on standard output."""
    settings = result.grid.settings
    table = Table(title="pinball loss / that of the daily seasonal naive", title_justify="left")
    table.add_column("model", no_wrap=True)
    names = ["kind", "ratio", *(f"{seconds / 60:g}min" for seconds in settings.horizons_s), "/better naive", "WAPE"]
    for name in [*names, *(f"≤q{level:g}" for level in settings.quantiles)]:
        table.add_column(name, justify="right", no_wrap=True)
    chosen = shown(result)
    for one in chosen:
        style = "bold" if one.name == SYSTEM else None
        table.add_row(one.name, one.kind, *cells(result, one), style=style)
    # A table in a file or a pipe is not cut to a terminal that is not there.
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    console.print(table)
    grid, left = result.grid, len(result.scores) - len(chosen)
    days = (grid.origins[-1] - grid.origins[0]) / grid.day
    lines = [
        f"bins of {settings.step_s / 60:g} min, {len(grid.origins)} origins over {days:.1f} days",
        f"the trust gate was open at {result.trusted_ratio:.0%} of them",
        f"CPU: {cpu_s.get(SYSTEM, 0.0):.1f} s for the system, learning and refits included",
    ]
    if left:
        lines.append(f"{left} more rules of the ensemble are in --json")
    console.print("\n".join(lines), style="dim", highlight=False)


def shown(result: Backtest) -> list[Score]:
    """Of the rules, the naive ones and the best."""
    rules = [one for one in result.scores if one.kind == "rule"]
    kept = rules[:_RULES_SHOWN] + [one for one in rules[_RULES_SHOWN:] if one.name in (DAILY, LAST)]
    return [one for one in result.scores if one.kind != "rule" or one in kept]


def cells(result: Backtest, one: Score) -> list[str]:
    """What the table says of one model, after its kind."""
    values = [result.ratio(one), *result.ratios(one), result.to_better_naive(one), float(np.mean(one.wape))]
    return [f"{value:.3f}" for value in values] + [f"{100 * share:.1f}" for share in one.coverage]


def record(result: Backtest, source: str, cpu_s: Mapping[str, float]) -> dict[str, object]:
    """Everything, for JSON: numbers that are not known are null."""
    grid = result.grid
    settings = grid.settings
    return {
        "series": source,
        "bin_s": settings.step_s,
        "horizons_s": settings.horizons_s,
        "quantiles": settings.quantiles,
        "origins": len(grid.origins),
        "first_origin_s": grid.instant_s(int(grid.origins[0])),
        "last_origin_s": grid.instant_s(int(grid.origins[-1])),
        "trusted_ratio": result.trusted_ratio,
        "cpu_s": dict(cpu_s),
        "models": [
            {
                "name": one.name,
                "kind": one.kind,
                "ratio": _known(result.ratio(one)),
                "ratio_per_horizon": [_known(value) for value in result.ratios(one)],
                "to_better_naive": _known(result.to_better_naive(one)),
                "loss_per_horizon": [_known(value) for value in one.loss],
                "wape_per_horizon": [_known(value) for value in one.wape],
                "coverage": [_known(value) for value in one.coverage],
            }
            for one in result.scores
        ],
    }


def dump_lines(result: Backtest) -> Iterator[str]:
    """The system's forecasts: instants in epoch seconds, demand per bin."""
    yield "origin,target,quantile,value\n"
    for origin, target, level, value in result.rows():
        yield f"{origin},{target},{level:g},{value:.10g}\n"


def write(
    result: Backtest, source: Path, cpu_s: Mapping[str, float], *, json_out: Path | None, dump: Path | None,
    plot: Path | None,
) -> None:  # fmt: skip
    """The files that were asked for. Raises StartError."""
    if json_out is not None:
        with writing(json_out):
            json_out.write_text(json.dumps(record(result, source.name, cpu_s), indent=1) + "\n")
    if dump is not None:
        with writing(dump), gzip.open(dump, "wt") if dump.suffix == ".gz" else dump.open("w") as file:
            file.writelines(dump_lines(result))
    if plot is not None:
        from autoscaler.plots.forecasts import draw_backtest

        with writing(plot):
            draw_backtest(plot, result)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
