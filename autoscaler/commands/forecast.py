"""`tidegate forecast`: what demand to expect after the end of a series."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.commands.series_options import HORIZONS, QUANTILES
from autoscaler.errors import EXIT_BAD_INPUT, StartError

if TYPE_CHECKING:
    from forecaster.events import Event
    from forecaster.forecast import Forecast

_EPILOG = """\b
FILE holds timestamp,value lines (.csv or .csv.gz): epoch seconds or ISO 8601, UTC where no zone is
named, and demand per bin; an empty value is lost telemetry. The forecast is made at the end of the
last bin, from the last 60 days. Known events are lines as in a policy, or iCalendar files whose
entries say `demand: +40..120 %`.

\b
Examples:
  tidegate forecast --series requests.csv --plot forecast.png
  tidegate forecast --series requests.csv --horizons 10m,1h --json
  tidegate forecast --series requests.csv --events '2026-12-01 09:00 Europe/Berlin for 3h, +40..120 %' \\
      --events launches.ics

\b
Exit codes: 0 done, 1 an output could not be written, 2 wrong command line or input.
"""
_KEPT_DAYS = 60
"""As many as the ensemble keeps."""
_BIN_S = 300
_DAY_S = 86_400


def register(app: typer.Typer) -> None:
    app.command("forecast", epilog=_EPILOG)(forecast)


def forecast(
    series: Annotated[Path, typer.Option(metavar="FILE", help="Demand as timestamp,value.")],
    bin_: Annotated[
        str | None, typer.Option("--bin", metavar="SPAN", help="Length of a bin.", show_default="5m, or the file's")
    ] = None,
    horizons: Annotated[str, typer.Option(metavar="SPANS", help="How far ahead, rounded up to whole bins.")] = HORIZONS,
    quantiles: Annotated[str, typer.Option(metavar="NUMBERS", help="Which quantiles.")] = QUANTILES,
    events: Annotated[
        list[str] | None, typer.Option(metavar="LINE|FILE.ics", help="Known events; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="The last days, bands and events.")] = None,
) -> None:
    """Forecast a demand with its uncertainty, and say by what and how far to trust it."""
    from autoscaler.commands import series_options as options

    options.one_thread(os.environ)
    from rich.console import Console

    from forecaster.forecast import forecast as made_from
    from forecaster.settings import ForecastSettings

    options.check_outputs((plot,))
    demand = options.series_from(series)
    wanted_s = None if bin_ is None else options.seconds_of(bin_, "--bin")
    step_s = wanted_s or max(1, _BIN_S // demand.step_s) * demand.step_s
    with options.refused():
        binned = demand.binned(step_s).last(_KEPT_DAYS * _DAY_S)
        settings = ForecastSettings(
            step_s=step_s,
            horizons_s=options.horizons_of(horizons),
            quantiles=options.quantiles_of(quantiles),
            stale_s=3.0 * step_s,
        )
        known = known_from(events or (), binned.start_s, binned.end_s + settings.horizons_s[-1])
        with Console(stderr=True).status("learning from the series"):
            made = made_from(binned, settings, now_s=binned.end_s, events=known)
    if made is None:
        raise StartError(f"{series}: no bin of {step_s} s is known, so nothing can be said", EXIT_BAD_INPUT)
    if as_json:
        typer.echo(json.dumps(record(made)))
    else:
        show(made)
    if plot is not None:
        from autoscaler.plots.forecasts import draw_forecast

        with options.writing(plot):
            draw_forecast(plot, binned, made, known)


def known_from(entries: Sequence[str], since_s: float, until_s: float) -> tuple[Event, ...]:
    """Events of lines and calendar files. Raises StartError for what cannot be read; what a calendar's single entries
    lack is said on standard error."""
    from autoscaler.known_events import known_events
    from forecaster.errors import EventError
    from forecaster.event_settings import CalendarSettings
    from forecaster.events import event_of

    events: list[Event] = []
    calendars: list[CalendarSettings] = []
    for entry in entries:
        if entry.endswith(".ics"):
            if not Path(entry).is_file():
                raise StartError(f"--events {entry}: no such file", EXIT_BAD_INPUT)
            calendars.append(CalendarSettings(file=Path(entry)))
            continue
        try:
            events.append(event_of(entry))
        except EventError as error:
            raise StartError(f"--events: {error}", EXIT_BAD_INPUT) from None
    known = known_events((), calendars, Path(), since_s=since_s, until_s=until_s)
    for problem in known.problems:
        typer.echo(f"tidegate: {problem}", err=True)
    return (*events, *known.events)


def show(made: Forecast) -> None:
    """A table and what is to be thought of it, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"demand per {made.step_s / 60:g} min, made at {_instant(made.made_at_s)}", title_justify="left"
    )
    table.add_column("bin that ends at")
    table.add_column("ahead", justify="right")
    for level in made.quantiles:
        table.add_column(f"q{level:g}", justify="right")
    for seconds, row in zip(made.horizons_s, made.values, strict=True):
        ends_s = made.made_at_s + -(-int(seconds) // made.step_s) * made.step_s
        table.add_row(_instant(ends_s), f"{seconds / 60:g} min", *(f"{value:.6g}" for value in row))
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    verdict = "trusted" if made.trusted else "not trusted"
    console.print(f"{made.model}: {made.reason}\n{verdict}: {made.trust_reason}", highlight=False, soft_wrap=True)


def record(made: Forecast) -> dict[str, object]:
    """Everything, for JSON: numbers that are not known are null."""
    return {
        "made_at_s": made.made_at_s,
        "bin_s": made.step_s,
        "horizons_s": made.horizons_s,
        "quantiles": made.quantiles,
        "values": made.values,
        "model": made.model,
        "reason": made.reason,
        "score_ratio": _known(made.score_ratio),
        "coverage": [_known(share) for share in made.coverage],
        "trusted": made.trusted,
        "trust_reason": made.trust_reason,
    }


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


def _instant(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%MZ")
