"""Forecasts of demand series, scored by rolling origin, with what they cost and whether the bars hold.

    python tests/bench/forecast                          # the series of tests/data/series
    python tests/bench/forecast --series DIR             # every .csv and .csv.gz of a directory
    python tests/bench/forecast --series DIR --classics --dumps OUT

Prints one row per series, geometric means over all and over the LLM series (files that begin with `servegen`), the
bars, and writes everything as JSON (tests/bench/out/forecast.json). `--dumps` writes what was forecast, one file per
series. One core; a series takes 10 to 60 s.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from autoscaler.commands.backtest_report import dump_lines
from autoscaler.series_file import load_series
from forecaster.backtest import Asked, Backtest, Grid, grid_of, run
from forecaster.classics import CLASSICS
from forecaster.forecast import Forecaster
from forecaster.scoring import geometric
from forecaster.series import Series

ROOT = Path(__file__).parents[3]
RATIO, WORST = 0.385, 1.02
COVERAGE = {0.9: (0.885, 0.915), 0.95: (0.94, 0.96)}
REFIT_S, PREDICT_S = 1.0, 0.005
TURNS = 12


@dataclass(frozen=True, slots=True)
class Row:
    """One series."""

    name: str
    ratio: float
    per_horizon: list[float]
    to_better_naive: float
    coverage: list[float]
    refit_s: float
    """CPU of learning everything anew that is learned anew in the run of a day: weights, trees, quantiles."""
    predict_s: float
    """CPU of taking in one new bin and forecasting from it; median of twelve."""
    others: dict[str, float]
    """Ratio of every other model."""

    @property
    def family(self) -> str:
        return "LLM" if self.name.startswith("servegen") else "other"


def costs(grid: Grid) -> tuple[float, float]:
    """CPU seconds of a refit of the whole and of one forecast, on all of the series."""
    series = grid.series
    forecaster = Forecaster(grid.settings)
    forecaster.observe(Series(series.start_s, series.step_s, series.values[:-TURNS]))
    ensemble = forecaster.ensemble
    assert ensemble is not None
    since = time.process_time()
    ensemble.fit_boost()
    ensemble.fit_stack()
    for lane in ensemble.lanes:
        lane.calibrate(ensemble.frame)
    refit_s = time.process_time() - since
    spent = []
    for end in range(len(series) - TURNS + 1, len(series) + 1):
        known = Series(series.start_s, series.step_s, series.values[:end])
        since = time.process_time()
        forecaster.observe(known)
        forecaster.forecast(known.end_s)
        spent.append(time.process_time() - since)
    return refit_s, float(np.median(spent))


def row_of(path: Path, classics: bool, tell: Callable[[str, float], None]) -> tuple[Row, Backtest]:
    """Score one file."""
    series = load_series(path)
    result = run(series, Asked(), CLASSICS if classics else None, tell)
    own, *others = result.scores
    row = Row(
        path.name.removesuffix(".gz").removesuffix(".csv"),
        result.ratio(own),
        [float(ratio) for ratio in result.ratios(own)],
        result.to_better_naive(own),
        list(own.coverage),
        *costs(grid_of(series, Asked())),
        {one.name: result.ratio(one) for one in others},
    )
    return row, result


def bars(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """Each bar in words, and whether it holds."""
    told = []
    families = {"LLM": [row for row in rows if row.family == "LLM"], "all": list(rows)}
    for name, part in families.items():
        if part:
            value = geometric(np.array([row.ratio for row in part]))
            told.append((f"ratio of {name} ({len(part)} series): {value:.4f}, at most {RATIO}", value <= RATIO))
    worst = max(rows, key=lambda row: row.to_better_naive)
    text = f"to the better naive, worst: {worst.to_better_naive:.3f} ({worst.name}), at most {WORST}"
    told.append((text, worst.to_better_naive <= WORST))
    families = {"LLM": families["LLM"], "others": [row for row in rows if row.family != "LLM"]}
    for name, part in families.items():
        for level, (low, high) in COVERAGE.items():
            if part:
                index = Asked().quantiles.index(level)
                share = float(np.mean([row.coverage[index] for row in part]))
                text = f"coverage of {level:g}, {name}: {share:.1%}, from {low:.1%} to {high:.1%}"
                told.append((text, low <= share <= high))
    refit_s, predict_s = max(row.refit_s for row in rows), max(row.predict_s for row in rows)
    told.append((f"CPU of a refit, worst: {refit_s:.2f} s, at most {REFIT_S:g} s", refit_s <= REFIT_S))
    text = f"CPU of a forecast, worst: {1e3 * predict_s:.1f} ms, at most {1e3 * PREDICT_S:g} ms"
    return [*told, (text, predict_s <= PREDICT_S)]


def table_of(rows: Sequence[Row]) -> Table:
    """Series and their means."""
    table = Table(title="pinball loss / that of the daily seasonal naive", title_justify="left")
    table.add_column("series", no_wrap=True)
    horizons = [f"{seconds / 60:g}min" for seconds in Asked().horizons_s]
    for name in ("ratio", *horizons, "/better naive", "≤q0.9", "≤q0.95", "≤q0.99", "refit s", "predict ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shares = [f"{100 * share:.1f}" for share in row.coverage[1:]]
        ratios = [f"{value:.3f}" for value in (row.ratio, *row.per_horizon, row.to_better_naive)]
        table.add_row(row.name, *ratios, *shares, f"{row.refit_s:.2f}", f"{1e3 * row.predict_s:.1f}")
    return table


def others_of(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """Geometric means of all other models, the best first."""
    means = {name: geometric(np.array([row.others[name] for row in rows])) for name in rows[0].others}
    return sorted(means.items(), key=lambda one: one[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=Path, default=ROOT / "tests" / "data" / "series")
    parser.add_argument("--only", default="", help="parts of names, with commas")
    parser.add_argument("--skip", default="", help="whole names, with commas")
    parser.add_argument("--classics", action="store_true", help="compare with classic models, too")
    parser.add_argument("--dumps", type=Path)
    parser.add_argument("--json", type=Path, default=ROOT / "tests" / "bench" / "out" / "forecast.json")
    given = parser.parse_args()
    skipped, wanted = set(given.skip.split(",")), given.only.split(",")
    paths = [
        path
        for path in sorted((*given.series.glob("*.csv"), *given.series.glob("*.csv.gz")))
        if path.name.split(".")[0] not in skipped and any(part in path.name for part in wanted)
    ]
    if not paths:
        sys.stderr.write(f"{given.series}: no .csv or .csv.gz there that was asked for\n")
        return 2
    rows: list[Row] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(paths))
        for done, path in enumerate(paths):
            progress.update(task, completed=done, description=path.name)
            row, result = row_of(
                path,
                given.classics,
                lambda part, share, name=path.name: progress.update(task, description=f"{name}: {part} {share:.0%}"),
            )
            rows.append(row)
            if given.dumps is not None:
                given.dumps.mkdir(parents=True, exist_ok=True)
                (given.dumps / f"{row.name}.csv").write_text("".join(dump_lines(result)))
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table_of(rows))
    for name, value in others_of(rows)[:12]:
        console.print(f"{name:30s} {value:.4f}", highlight=False)
    told = bars(rows)
    for text, holds in told:
        console.print(f"{'holds ' if holds else 'FAILS '} {text}", highlight=False)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"series": [asdict(row) for row in rows], "bars": told}, indent=1) + "\n")
    return 0 if all(holds for _, holds in told) else 1


if __name__ == "__main__":
    sys.exit(main())
