"""`tidegate simulate`: what the policy would have done on this demand, against others, before anybody trusts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.errors import EXIT_BAD_INPUT

if TYPE_CHECKING:
    from autoscaler.policy.pools import PoolSettings

_EPILOG = """\b
Plays Tidegate's own controller and the usual autoscalers in a model of the fleet: the same demand, the same start-up
times, billed from the request for a replica to its end. The first table has the strategies that people choose from, as
they are usually set: cost, mean wait for the first token, and what may go wrong. The second gives GPU-hours at equal
shares of requests past the objective (time to first token up to 2 s, 100 ms between tokens), each policy with its knob
where it needs it.

\b
Examples:
  tidegate simulate --demand requests.csv --lengths trace.csv.gz --peak 20 --days 7
  tidegate simulate --demand requests.csv --lengths trace.csv.gz --policies none --disturbed
  tidegate simulate --trace trace.csv.gz --scenario new-node --policies tidegate,hpa,oracle-L --plot out.png
  tidegate simulate --demand requests.csv --lengths trace.csv.gz --compare old.yaml new.yaml

\b
Exit codes: 0 done, 1 a run failed (its seed is printed), 2 wrong command line or input.
"""


def register(app: typer.Typer) -> None:
    app.command("simulate", epilog=_EPILOG)(simulate)


def simulate(
    demand: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Demand as timestamp,value: requests per second, or see --peak.")
    ] = None,
    lengths: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trace to draw request lengths from; with --demand.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Requests: arrival_seconds,input_tokens,output_tokens.")
    ] = None,
    peak: Annotated[
        int | None, typer.Option(min=1, help="Scale the highest five minutes to what so many replicas serve.")
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.02, help="Play the last so many days; the rest is history.")
    ] = None,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="Bound for every policy.", show_default="1.25 x peak")
    ] = None,
    start_up: Annotated[
        str | None, typer.Option(metavar="P50,P95", help="Start-up time in seconds, instead of --scenario.")
    ] = None,
    scenario: Annotated[str, typer.Option(help="warm, node, new-node or scarce.")] = "node",
    objective_misses: Annotated[str, typer.Option(metavar="SHARE", help="Requests that may miss, such as 1%.")] = "1%",
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Policy whose first pool is played.", show_default="defaults")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Two policies: what changes from A to B.")
    ] = None,
    policies: Annotated[
        str, typer.Option(metavar="NAMES", help="Whom to compare at equal misses, with commas; none: nobody.")
    ] = "tidegate,max,hpa,keda,kpa,ray,seasonal,oracle-L,oracle-0",
    engine: Annotated[str, typer.Option(help="fast, or exact: every request through the real balancer.")] = "fast",
    strategies: Annotated[bool, typer.Option(help="Also play the usual strategies, each as it is usually set.")] = True,
    disturbed: Annotated[
        bool, typer.Option("--disturbed", help="Readings get lost, stop for ten minutes, turn into NaN.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs with different noise.")] = 1,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Everything, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="GPU-hours over misses.")] = None,
    dump_schedule: Annotated[
        Path | None, typer.Option(metavar="OUT.csv", help="Tidegate's decisions: time_s,desired_replicas.")
    ] = None,
) -> None:
    """Play autoscaling policies on a demand and compare their cost at equal misses."""
    from autoscaler.commands import experiment

    try:
        draw, drawn, series = experiment.source_of(demand, lengths, trace, days)
        plan = experiment.Plan(
            draw=draw,
            lengths=drawn,
            series=series,
            scenario=experiment.scenario_of(scenario, start_up),
            peak=peak,
            max_replicas=max_replicas,
            objective=experiment.share_of(objective_misses),
            policies=experiment.names_of(policies),
            engine=engine_of(engine),
            seeds=seeds,
            pools=pools_of(policy, compare),
            strategies=strategies and compare is None,
            disturbed=disturbed,
        )
        experiment.run(plan, json_out=json_out, plot=plot, dump_schedule=dump_schedule)
    except experiment.InputError as error:
        typer.echo(f"tidegate: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from None


def engine_of(name: str) -> str:
    from autoscaler.commands.experiment import InputError

    if name not in ("fast", "exact"):
        raise InputError(f"--engine {name!r}: there are fast and exact")
    return name


def pools_of(policy: Path | None, compare: tuple[Path, Path] | None) -> tuple[tuple[str, PoolSettings | None], ...]:
    """Tidegate's policies by the name that the table shows."""
    from autoscaler.commands.experiment import InputError
    from autoscaler.sim.lab import EVERYONE, TIDEGATE
    from autoscaler.sim.strategies import STRATEGIES

    if compare is not None:
        if policy is not None:
            raise InputError("give --policy or --compare, not both")
        names = [path.stem for path in compare]
        if names[0] == names[1] or set(names) & {*EVERYONE, *STRATEGIES}:
            names = [str(path) for path in compare]
        if names[0] == names[1]:
            raise InputError(f"--compare {names[0]} {names[1]}: the same file twice")
        return tuple((name, _pool(path)) for name, path in zip(names, compare, strict=True))
    return ((TIDEGATE, None if policy is None else _pool(policy)),)


def _pool(path: Path) -> PoolSettings:
    """The first pool under `scaling` of a policy."""
    from autoscaler.commands.experiment import InputError
    from autoscaler.policy.load import load
    from lb.yaml_document import DocumentError

    try:
        scaling = load(path).policy.scaling
    except DocumentError as error:
        raise InputError("; ".join(problem.text(str(path)) for problem in error.problems)) from None
    if not scaling.pools:
        raise InputError(f"{path}: names no pool; write `scaling:` with `pools:` and at least one `- name:`")
    return scaling.pools[0]
