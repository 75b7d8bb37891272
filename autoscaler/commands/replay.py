"""`tidegate replay`: `simulate` on the demand that a Prometheus server remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoscaler.errors import EXIT_BAD_INPUT

_EPILOG = """\b
The query must give offered requests per second as one series; several are added up. Gaps stay gaps.

\b
Examples:
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
    prometheus: Annotated[str, typer.Option(metavar="URL", help="Prometheus, or whatever speaks its API.")],
    query: Annotated[str, typer.Option(metavar="PROMQL", help="Offered requests per second.")],
    lengths: Annotated[Path, typer.Option(metavar="FILE", help="Trace to draw request lengths from.")],
    history: Annotated[float, typer.Option(min=0.1, max=90, help="Days to fetch.")] = 14.0,
    days: Annotated[float, typer.Option(min=0.02, help="Of these, the last so many are played.")] = 7.0,
    peak: Annotated[int | None, typer.Option(min=1, help="Scale the peak to what so many replicas serve.")] = None,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="Bound for every policy.")] = None,
    start_up: Annotated[str | None, typer.Option(metavar="P50,P95", help="Start-up time in seconds.")] = None,
    scenario: Annotated[str, typer.Option(help="warm, node, new-node or scarce.")] = "node",
    objective_misses: Annotated[str, typer.Option(metavar="SHARE", help="Requests that may miss.")] = "1%",
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="Policy whose first pool is played.")] = None,
    policies: Annotated[str, typer.Option(metavar="NAMES", help="Whom to play.")] = "tidegate,hpa,keda,oracle-L",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs with different noise.")] = 1,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Everything, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="GPU-hours over misses.")] = None,
    dump_schedule: Annotated[Path | None, typer.Option(metavar="OUT.csv", help="Tidegate's decisions.")] = None,
) -> None:
    """Play autoscaling policies on what Prometheus remembers."""
    from autoscaler.commands import experiment
    from autoscaler.commands.prometheus import fetch
    from autoscaler.commands.simulate import pools_of
    from autoscaler.sim.workload import Lengths

    try:
        series = fetch(prometheus, query, history)
        plan = experiment.Plan(
            draw=experiment.drawn_from(series, min(days, history)),
            lengths=Lengths.of(experiment.trace_from(lengths)),
            scenario=experiment.scenario_of(scenario, start_up),
            peak=peak,
            max_replicas=max_replicas,
            objective=experiment.share_of(objective_misses),
            policies=experiment.names_of(policies),
            engine="fast",
            seeds=seeds,
            pools=pools_of(policy, None),
        )
        experiment.run(plan, json_out=json_out, plot=plot, dump_schedule=dump_schedule)
    except experiment.InputError as error:
        typer.echo(f"tidegate: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None
