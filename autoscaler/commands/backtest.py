"""`tidegate backtest`: how good forecasts of this demand would have been."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.commands.series_options import HORIZONS, QUANTILES

_EPILOG = """\b
FILE holds timestamp,value lines (.csv or .csv.gz): epoch seconds or ISO 8601, UTC where no zone is
named, and demand per bin; an empty value is lost telemetry. Over 4 days are needed. The last 10 days
are scored (5 of a series of 13 to 25 days, 2.5 of a shorter one), an origin every --stride, and at
each only what had come by then is known. Losses are pinball losses over the quantiles, as ratios to
the daily seasonal naive. `system` is what Tidegate would have used; all others get quantiles from
their own errors of the last ten days.

\b
Examples:
  tidegate backtest --series requests.csv.gz
  tidegate backtest --series requests.csv --bin 5m --horizons 5m,15m,30m,60m --classics --plot out.png
  tidegate backtest --series requests.csv --dump forecasts.csv.gz --json scores.json

\b
Exit codes: 0 done, 1 an output could not be written, 2 wrong command line or input.
"""


def register(app: typer.Typer) -> None:
    app.command("backtest", epilog=_EPILOG)(backtest)


def backtest(
    series: Annotated[Path, typer.Option(metavar="FILE", help="Demand as timestamp,value.")],
    bin_: Annotated[
        str | None, typer.Option("--bin", metavar="SPAN", help="Length of a bin.", show_default="5m, or the file's")
    ] = None,
    horizons: Annotated[str, typer.Option(metavar="SPANS", help="How far ahead, rounded up to whole bins.")] = HORIZONS,
    quantiles: Annotated[str, typer.Option(metavar="NUMBERS", help="Which quantiles.")] = QUANTILES,
    stride: Annotated[str, typer.Option(metavar="SPAN", help="Between origins.")] = "30m",
    classics: Annotated[bool, typer.Option("--classics", help="Compare with classic models, too.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="All scores, as JSON.")] = None,
    dump: Annotated[
        Path | None, typer.Option(metavar="OUT.csv", help="The system's forecasts: origin,target,quantile,value.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="Bands over demand, losses by horizon.")] = None,
) -> None:
    """Score forecasts of a demand as they would have been made, against naive and classic models."""
    from autoscaler.commands import series_options as options

    options.one_thread(os.environ)
    from autoscaler.commands.backtest_report import Watch, show, write
    from forecaster.backtest import Asked, run

    asked = Asked(
        bin_s=None if bin_ is None else options.seconds_of(bin_, "--bin"),
        horizons_s=options.horizons_of(horizons),
        quantiles=options.quantiles_of(quantiles),
        stride_s=options.seconds_of(stride, "--stride"),
    )
    options.check_outputs((json_out, dump, plot))
    demand = options.series_from(series)
    others = {}
    if classics:
        from forecaster.classics import CLASSICS

        others = CLASSICS
    with options.refused(), Watch() as watch:
        result = run(demand, asked, others, watch.tell)
    show(result, watch.cpu_s)
    write(result, series, watch.cpu_s, json_out=json_out, dump=dump, plot=plot)
