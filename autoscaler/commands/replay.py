"""`tidegate replay`: `simulate` on the demand that the daemon's store or a Prometheus server remembers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.errors import EXIT_BAD_INPUT

if TYPE_CHECKING:
    from forecaster.series import Series

_EPILOG = """\b
Demand comes from the daemon's own store, or from a query that gives offered requests per second as one series; several
are added up. Gaps stay gaps.

\b
Examples:
  tidegate replay --store /var/lib/tidegate --model llama-3-70b --lengths trace.csv.gz --policy policy.yaml
  tidegate replay --prometheus http://prometheus:9090 --lengths trace.csv.gz \\
      --query 'sum(rate(tidegate_requests_total[1m]))' --history 14 --days 7
  tidegate replay --prometheus http://prometheus:9090 --query 'sum(rate(nginx_http_requests_total[1m]))' \\
      --lengths trace.csv.gz --policies tidegate,hpa --start-up 120,300

\b
Exit codes: 0 done, 1 a run failed (its seed is printed), 2 wrong command line or no data.
"""


def register(app: typer.Typer) -> None:
    app.command("replay", epilog=_EPILOG)(replay)


def replay(
    lengths: Annotated[Path, typer.Option(metavar="FILE", help="Trace to draw request lengths from.")],
    store: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The daemon's tidegate.db, or its directory; with --model.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model, by the name that clients use.")] = None,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Prometheus, or whatever speaks its API; with --query.")
    ] = None,
    query: Annotated[str | None, typer.Option(metavar="PROMQL", help="Offered requests per second.")] = None,
    history: Annotated[float, typer.Option(min=0.1, max=90, help="Days to read.")] = 14.0,
    days: Annotated[float, typer.Option(min=0.02, help="Of these, the last so many are played.")] = 7.0,
    peak: Annotated[int | None, typer.Option(min=1, help="Scale the peak to what so many replicas serve.")] = None,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="Bound for every policy.")] = None,
    start_up: Annotated[str | None, typer.Option(metavar="P50,P95", help="Start-up time in seconds.")] = None,
    scenario: Annotated[str, typer.Option(help="warm, node, new-node or scarce.")] = "node",
    objective_misses: Annotated[str, typer.Option(metavar="SHARE", help="Requests that may miss.")] = "1%",
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="Policy whose first pool is played.")] = None,
    policies: Annotated[str, typer.Option(metavar="NAMES", help="Whom to play.")] = "tidegate,hpa,keda,oracle-L",
    engine: Annotated[str, typer.Option(help="fast, or exact: every request through the real balancer.")] = "fast",
    strategies: Annotated[bool, typer.Option(help="Also play the usual strategies, each as it is usually set.")] = True,
    disturbed: Annotated[
        bool, typer.Option("--disturbed", help="Readings get lost, stop for ten minutes, turn into NaN.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs with different noise.")] = 1,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Everything, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="GPU-hours over misses.")] = None,
    dump_schedule: Annotated[Path | None, typer.Option(metavar="OUT.csv", help="Tidegate's decisions.")] = None,
) -> None:
    """Play autoscaling policies on what the store or Prometheus remembers."""
    from autoscaler.commands import experiment
    from autoscaler.commands.simulate import engine_of, pools_of
    from autoscaler.sim.workload import Lengths

    try:
        series = demand_of(store, model, prometheus, query, history)
        plan = experiment.Plan(
            draw=experiment.drawn_from(series, min(days, history)),
            series=series,
            lengths=Lengths.of(experiment.trace_from(lengths)),
            scenario=experiment.scenario_of(scenario, start_up),
            peak=peak,
            max_replicas=max_replicas,
            objective=experiment.share_of(objective_misses),
            policies=experiment.names_of(policies),
            engine=engine_of(engine),
            seeds=seeds,
            pools=pools_of(policy, None),
            strategies=strategies,
            disturbed=disturbed,
        )
        experiment.run(plan, json_out=json_out, plot=plot, dump_schedule=dump_schedule)
    except experiment.InputError as error:
        typer.echo(f"tidegate: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None


def demand_of(
    store: Path | None, model: str | None, prometheus: str | None, query: str | None, history: float
) -> Series:
    """Requests per second of the last days, a value a minute. Raises InputError."""
    from autoscaler.commands.experiment import InputError
    from autoscaler.commands.prometheus import fetch

    if (store is None) == (prometheus is None):
        raise InputError("give either --store PATH with --model, or --prometheus URL with --query")
    if prometheus is not None:
        if query is None:
            raise InputError("--prometheus needs --query: what gives offered requests per second")
        return fetch(prometheus, query, history)
    if store is None or model is None:
        raise InputError("--store needs --model: whose demand")
    return _remembered(store, model, history)


def _remembered(store: Path, model: str, history: float) -> Series:
    import sqlite3

    from autoscaler.commands.experiment import InputError
    from autoscaler.commands.history import path_of, series_of
    from autoscaler.store import StoreError, StoreFile
    from forecaster.history import Quantity
    from forecaster.series import Series

    try:
        file = StoreFile.open_for_reading(path_of(store))
        try:
            bins, models = file.bins(model, 0.0), file.models()
        finally:
            file.close()
    except (StoreError, sqlite3.Error) as error:
        raise InputError(f"--store {store}: {error}") from None
    bins = [one for one in bins if one.start_s > bins[-1].start_s - history * 86_400.0]
    if len(bins) < 2:
        raise InputError(f"no demand of {model!r} is known; models with demand: {', '.join(models) or 'none'}")
    minutes = series_of(bins, Quantity.REQUESTS, 60)
    return Series(minutes.start_s, minutes.step_s, minutes.values / minutes.step_s)
