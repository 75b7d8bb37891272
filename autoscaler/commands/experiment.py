"""Runs what `simulate` and `replay` ask for: reads files, shows progress, prints the table, writes the outputs."""

from __future__ import annotations

import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from autoscaler import series_file
from autoscaler.decide.mix import price
from autoscaler.policy.pools import PoolSettings
from autoscaler.sim.calibration import calibrate
from autoscaler.sim.fast import HOURS_ERROR, MISSES_ERROR
from autoscaler.sim.foresight import Foresight, can_forecast
from autoscaler.sim.lab import EVERYONE, ORACLES, TIDEGATE, Lab, hours_at, lab_for
from autoscaler.sim.outlooks import Outlooks
from autoscaler.sim.pool_model import PoolModel
from autoscaler.sim.replica_model import ReplicaModel
from autoscaler.sim.report import HEADER, TARGETS, Row, cells, mean, record, row, schedule_lines
from autoscaler.sim.score import Score
from autoscaler.sim.series import Trace, read_series, read_trace
from autoscaler.sim.start_up import SCENARIOS, Scenario
from autoscaler.sim.strategies import HYBRID, STRATEGIES, STRATEGY_HEADER, strategy_cells
from autoscaler.sim.workload import Lengths, Load, load_of, load_of_trace
from forecaster.errors import SeriesError
from forecaster.series import Series

FAST_ERROR = (
    f"GPU-hours within {HOURS_ERROR:.0%} and misses within {100 * MISSES_ERROR:g} points of the exact engine, "
    "as measured on short runs; for a verdict: --engine exact"
)

PICTURES = (".png", ".svg", ".pdf")

_WIDTH = 140
_LEAST_S = 1800


class InputError(ValueError):
    """The command line or a file is wrong; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to play."""

    draw: Callable[[float | None, int], Load]
    """The load for a peak in requests a second (None: as it is) and a seed."""
    lengths: Lengths
    scenario: Scenario
    peak: int | None
    max_replicas: int | None
    objective: float
    policies: tuple[str, ...]
    engine: str
    seeds: int
    pools: tuple[tuple[str, PoolSettings | None], ...]
    """Tidegate's policies by the name that the table shows; one, or two to compare."""
    strategies: bool = True
    """Also play the strategies that people choose from, as they are usually set."""
    series: Series | None = None
    """What the load is drawn from, for forecasts of it; None (a trace of hours): none are made."""
    disturbed: bool = False
    """Readings get lost, stop for a while and turn into nonsense, for everybody but the oracles."""

    @property
    def hour_price(self) -> float:
        """Of one replica for an hour."""
        pool = self.pools[0][1] or PoolSettings(name="pool")
        return price(pool.kinds[0])


def open_text(path: Path) -> io.TextIOBase:
    """A text file, unpacked if it ends in .gz. Raises InputError."""
    try:
        return series_file.open_text(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def series_from(path: Path) -> Series:
    try:
        return series_file.load_series(path, read_series)
    except SeriesError as error:
        raise InputError(str(error)) from None


def trace_from(path: Path) -> Trace:
    with open_text(path) as file:
        try:
            return read_trace(file)
        except (SeriesError, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: {error}") from None


def source_of(
    demand: Path | None, lengths: Path | None, trace: Path | None, days: float | None
) -> tuple[Callable[[float | None, int], Load], Lengths, Series | None]:
    """How to draw the load, lengths, and the series that it is drawn from, from the files that were named."""
    if (demand is None) == (trace is None):
        raise InputError("give either --demand FILE with --lengths TRACE, or --trace FILE")
    if trace is not None:
        if lengths is not None:
            raise InputError("--lengths goes with --demand; a --trace has its own")
        requests = trace_from(trace)
        lengths_of = Lengths.of(requests)
        return lambda peak, seed: load_of_trace(requests, days=days, peak_per_s=peak, seed=seed), lengths_of, None
    assert demand is not None
    if lengths is None:
        raise InputError("--demand needs --lengths TRACE: a request's cost is in its lengths")
    series = series_from(demand)
    return drawn_from(series, days), Lengths.of(trace_from(lengths)), series


def drawn_from(series: Series, days: float | None) -> Callable[[float | None, int], Load]:
    return lambda peak, seed: load_of(series, days=days, peak_per_s=peak, seed=seed)


def scenario_of(name: str, start_up: str | None) -> Scenario:
    if start_up is None:
        if name not in SCENARIOS:
            raise InputError(f"--scenario {name!r}: there are {', '.join(SCENARIOS)}")
        return SCENARIOS[name]
    try:
        p50_s, p95_s = (float(part.strip().removesuffix("s")) for part in start_up.split(","))
    except ValueError:
        raise InputError(f"--start-up {start_up!r}: write two numbers of seconds, such as 100,240") from None
    if not 0.0 < p50_s <= p95_s < inf:
        raise InputError(f"--start-up {start_up!r}: the first must be positive and not more than the second")
    return Scenario("custom", p50_s, p95_s)


def share_of(text: str) -> float:
    try:
        value = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        raise InputError(f"--objective-misses {text!r}: write a share such as 1% or 0.01") from None
    if not 0.0 < value < 0.5:
        raise InputError(f"--objective-misses {text!r}: must be over 0 and under 50%")
    return value


def names_of(text: str) -> tuple[str, ...]:
    if text.strip() == "none":
        return ()
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in EVERYONE]
    if unknown or not names:
        raise InputError(f"--policies {text!r}: there are {', '.join(EVERYONE)}, and none")
    return names


def check_outputs(*paths: Path | None, plot: Path | None) -> None:
    """That files can be written, before anything is played."""
    for path in (*paths, plot):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise InputError(f"{path}: must be a file in a folder that exists")
    if plot is not None and plot.suffix not in PICTURES:
        raise InputError(f"--plot {plot}: the name must end in {', '.join(PICTURES)}")


@contextmanager
def progress_bar(console: Console, title: str, total: float) -> Iterator[Callable[[int], None]]:
    """A bar on standard error that advances by what it is told."""
    columns = (TextColumn("{task.description:32s}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda advance: progress.update(task, advance=advance)


class Experiment:
    """One call of the command."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._notes = Console(stderr=True)
        self.runs: dict[str, list[list[Score]]] = {}
        """By policy and seed."""
        self.at: dict[str, list[list[float]]] = {}
        self.strategies: dict[str, list[Score]] = {}
        """By strategy, one a seed."""
        self._model: PoolModel | None = None
        series = plan.series
        known = series is not None and can_forecast(series.step_s)
        self._outlooks = Outlooks(series, Foresight()) if series is not None and known else None
        """Made once: seeds and policies read the same."""

    def play(self) -> list[Row]:
        """All policies and seeds. A failure names its seed."""
        plan = self._plan
        load = plan.draw(None, 1)
        length = len(load.arrivals) - load.start
        if length < _LEAST_S:
            raise InputError(f"only {length} s to play; at least half an hour is needed, as 15 minutes are not scored")
        if not load.arrivals[load.start :].any():
            raise InputError("nothing arrives in what is to be played")
        with progress_bar(self._notes, "calibrating the fast engine", 8100) as tell:
            self._model = calibrate(ReplicaModel(), plan.lengths, progress=tell)
        if self._outlooks is not None and TIDEGATE in plan.policies:
            with progress_bar(self._notes, "forecasting", length) as tell:
                self._outlooks.of(load, tell)
        for seed in range(1, plan.seeds + 1):
            try:
                self._seed(seed)
            except InputError:
                raise
            except Exception:
                sys.stderr.write(f"tidegate: a run failed with seed {seed}\n")
                raise
        rows = []
        for name, runs in self.runs.items():
            rows.append(row(name, runs, plan.objective, self.at.get(name, ())))
        return rows

    def _seed(self, seed: int) -> None:
        plan = self._plan
        assert self._model is not None
        lab = lab_for(
            self._model, plan.lengths, lambda peak: plan.draw(peak, seed), plan.scenario, peak=plan.peak,
            max_replicas=plan.max_replicas, objective=plan.objective, seed=seed,
            outlooks=self._outlooks if TIDEGATE in plan.policies else None,
        )  # fmt: skip
        lab = replace(lab, disturbed=plan.disturbed)
        for label, pool in plan.pools if TIDEGATE in plan.policies else ():
            self._keep(label, [self._once(replace(lab, pool=pool), TIDEGATE, None, label)], [])
        for name in plan.policies:
            if name != TIDEGATE:
                self._swept(lab, name)
        for label, (name, knob) in STRATEGIES.items() if plan.strategies else ():
            known = self.runs.get(plan.pools[0][0]) if name == TIDEGATE else None
            score = known[-1][0] if known else self._once(replace(lab, pool=plan.pools[0][1]), name, knob, label)
            self.strategies.setdefault(label, []).append(score)

    def _swept(self, lab: Lab, name: str) -> None:
        """One policy with its knob where it needs it. Exact: the fast engine finds the knob, an exact run judges it."""
        plan = self._plan
        length = len(lab.load.arrivals) - lab.load.start
        with progress_bar(self._notes, f"{name}, seed {lab.seed}", 8.0 * length) as tell:
            scores = lab.sweep(name, plan.objective, progress=tell)
        if plan.engine == "exact":
            knob = min(scores, key=lambda one: abs(one.misses - plan.objective)).knob
            self._keep(name, [self._once(lab, name, knob, name)], [])
        else:
            self._keep(name, scores, hours_at(scores, TARGETS))

    def _once(self, lab: Lab, name: str, knob: float | None, label: str) -> Score:
        """One run. Tidegate without a knob finds its margin itself."""
        length = len(lab.load.arrivals) - lab.load.start
        with progress_bar(self._notes, f"{label}, seed {lab.seed}, {self._plan.engine}", length) as tell:
            play = lab.exact if self._plan.engine == "exact" else lab.fast
            return replace(play(lab.policy(name, knob), 1.0 if knob is None else knob, tell), policy=label)

    def _keep(self, name: str, scores: list[Score], at: list[float]) -> None:
        self.runs.setdefault(name, []).append(scores)
        if at:
            self.at.setdefault(name, []).append(at)

    # ------------------------------------------------------------------ what comes out

    def show(self, rows: list[Row]) -> None:
        """The tables, on standard output."""
        plan = self._plan
        # A table in a file or a pipe is not cut to a terminal that is not there.
        console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
        title = f"start-up {plan.scenario.p50_s:g}/{plan.scenario.p95_s:g} s, objective {plan.objective:.2%}"
        title += f", {plan.seeds} seed{'s' * (plan.seeds > 1)}, {plan.engine} engine"
        title += ", disturbed readings" * plan.disturbed
        if self.strategies:
            console.print(self._strategy_table(title))
        if rows:
            console.print(self._policy_table(rows, title))
        if plan.engine == "fast":
            console.print(f"[dim]fast engine: {FAST_ERROR}[/dim]", highlight=False)
        if len(plan.pools) == 2:
            first, second = (next(one for one in rows if one.policy == label) for label, _ in plan.pools)
            change = second.hours / first.hours - 1.0
            points = 100 * (second.misses - first.misses)
            console.print(
                f"{second.policy} against {first.policy}: GPU-hours {change:+.1%}, misses {points:+.2f} points"
            )

    def _strategy_table(self, title: str) -> Table:
        most = self.strategies["always maximum"]
        hours = mean([one.gpu_hours for one in most])
        table = _table(f"strategies as usually set; {title}", STRATEGY_HEADER)
        for name, scores in self.strategies.items():
            table.add_row(*strategy_cells(name, scores, self._plan.hour_price, hours))
        return table

    def _policy_table(self, rows: list[Row], title: str) -> Table:
        oracle = next((one for one in rows if one.policy == ORACLES[1] and one.gpu_hours), None)
        reference = None if oracle is None else oracle.gpu_hours[TARGETS.index(0.01)]
        table = _table(f"GPU-hours at equal misses; {title}", HEADER)
        for one in rows:
            table.add_row(*cells(one, reference))
        return table

    def write(self, rows: list[Row], json_out: Path | None, plot: Path | None, schedule: Path | None) -> None:
        """The files that were asked for."""
        flat = {name: [score for scores in runs for score in scores] for name, runs in self.runs.items()}
        everyone = {**self.strategies, **flat}
        plan = self._plan
        if json_out is not None:
            facts = {
                "engine": plan.engine, "objective": plan.objective, "seeds": plan.seeds, "peak": plan.peak,
                "start_up_p50_s": plan.scenario.p50_s, "start_up_p95_s": plan.scenario.p95_s,
            }  # fmt: skip
            json_out.write_text(json.dumps(record(rows, everyone, facts), indent=1) + "\n")
        if plot is not None:
            from autoscaler.sim.plot import pareto

            pareto(plot, everyone, plan.objective)
        if schedule is not None:
            own = flat.get(plan.pools[0][0]) or self.strategies[HYBRID]
            schedule.write_text("\n".join(schedule_lines(own[0])) + "\n")


def _table(title: str, header: tuple[str, ...]) -> Table:
    table = Table(title=title)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    return table


def run(plan: Plan, *, json_out: Path | None, plot: Path | None, dump_schedule: Path | None) -> None:
    """Play, print, write."""
    if not plan.policies and not plan.strategies:
        raise InputError("--policies none with --no-strategies leaves nothing to play")
    own = TIDEGATE in plan.policies
    if len(plan.pools) == 2 and not own:
        raise InputError("--compare needs tidegate among --policies")
    if dump_schedule is not None and not own and not plan.strategies:
        raise InputError("--dump-schedule needs tidegate among --policies")
    check_outputs(json_out, dump_schedule, plot=plot)
    experiment = Experiment(plan)
    rows = experiment.play()
    experiment.show(rows)
    experiment.write(rows, json_out, plot, dump_schedule)
