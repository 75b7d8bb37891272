"""`tidegate history`: the demand that the daemon remembers, and what it should have remembered before it was there."""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.errors import EXIT_BAD_INPUT, StartError

if TYPE_CHECKING:
    from autoscaler.commands.backfill import Imported, Source
    from autoscaler.store import Bin, StoreFile
    from forecaster.history import Quantity
    from forecaster.series import Series

_WHERE = "The daemon's tidegate.db, or its directory."
_EPILOG = """\b
Exit codes: 0 done, 1 the store cannot be used, 2 wrong command line or input.
"""
_IMPORT_EPILOG = """\b
Files (.csv or .csv.gz) hold timestamp,value lines: epoch seconds or ISO 8601, UTC where no zone is
named, and demand per bin of any length; an empty value is lost telemetry. Queries give demand a
second. What the store knows already stays, unless --replace is given. A daemon that runs takes the
new minutes at its next start. Run it as the daemon's user, who must be able to write the store.

\b
Examples:
  tidegate history import --store /var/lib/tidegate --model llama-3-70b \\
      --requests requests.csv --tokens-per-request 900,250
  tidegate history import --store /var/lib/tidegate --model llama-3-70b \\
      --prometheus http://prometheus:9090 --days 42 \\
      --requests 'sum(rate(vllm:request_success_total[1m]))' \\
      --prompt-tokens 'sum(rate(vllm:prompt_tokens_total[1m]))' \\
      --output-tokens 'sum(rate(vllm:generation_tokens_total[1m]))'

\b
Exit codes: 0 done, 1 the store cannot be used, 2 wrong command line or input.
"""
_RETENTION_S = 56 * 86_400
"""The default of store.history."""

Store = Annotated[Path, typer.Option(metavar="PATH", help=_WHERE)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Show, import and export the demand history that forecasts use.")
    group.command("show", epilog=_EPILOG)(show)
    group.command("import", epilog=_IMPORT_EPILOG)(import_)
    group.command("export", epilog=_EPILOG)(export)
    app.add_typer(group, name="history")


def import_(
    store: Store,
    model: Annotated[str, typer.Option(metavar="NAME", help="The model, by the name that clients use.")],
    requests: Annotated[str, typer.Option(metavar="FILE|PROMQL", help="Offered requests.")],
    prompt_tokens: Annotated[str | None, typer.Option(metavar="FILE|PROMQL", help="Their prompt tokens.")] = None,
    output_tokens: Annotated[str | None, typer.Option(metavar="FILE|PROMQL", help="Tokens of answers.")] = None,
    tokens_per_request: Annotated[
        str | None, typer.Option(metavar="PROMPT,OUTPUT", help="Means, where tokens are not given.")
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask this server, or whatever speaks its API, instead of files.")
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, max=366, help="Days to ask it for.")] = 42.0,
    per_second: Annotated[bool, typer.Option("--per-second", help="Values of files are demand a second.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite what the store knows already.")] = False,
) -> None:
    """Fill in demand from before the daemon was there, out of CSV files or Prometheus."""
    from autoscaler.commands.backfill import bins_of, of_file, of_prometheus, write
    from autoscaler.commands.experiment import InputError
    from forecaster.errors import SeriesError
    from forecaster.history import Quantity

    given = {Quantity.REQUESTS: requests, Quantity.PROMPT_TOKENS: prompt_tokens, Quantity.OUTPUT_TOKENS: output_tokens}
    means = _means(tokens_per_request, [quantity for quantity, text in given.items() if text is None])
    sources: dict[Quantity, Source] = {
        quantity: of_file(Path(text), per_second=per_second)
        if prometheus is None
        else of_prometheus(prometheus, text, days)
        for quantity, text in given.items()
        if text is not None
    }
    if not model:
        raise typer.BadParameter("must not be empty", param_hint="--model")
    try:
        bins = bins_of(model, _read(sources, None if prometheus is None else days), means)
    except (InputError, SeriesError) as error:
        raise StartError(str(error), EXIT_BAD_INPUT) from None
    now = time.time()
    with _opened(lambda: _writable(path_of(store), now)) as file, _bar("storing", len(bins)) as advance:
        imported = write(file, model, bins, replace=replace, now_s=now, progress=advance)
    typer.echo("\n".join(told(imported, model, now)))


def show(
    store: Store,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What is known of each model: from when to when, how much of it, and how much demand it was."""
    from autoscaler.store import StoreFile

    with _opened(lambda: StoreFile.open_for_reading(path_of(store))) as file:
        found = [summary(model, file.bins(model, 0.0)) for model in file.models()]
    if as_json:
        typer.echo(json.dumps(found))
    elif not found:
        typer.echo("no demand is known yet: `tidegate history import` fills it in, the daemon adds to it each minute")
    else:
        _print_table(found)


def export(
    store: Store,
    model: Annotated[str, typer.Option(metavar="NAME", help="The model.")],
    quantity: Annotated[str, typer.Option(help="requests, prompt_tokens or output_tokens.")] = "requests",
    bin_: Annotated[str, typer.Option("--bin", metavar="SPAN", help="Length of a row's bin: 1m, 5m, 1h.")] = "1m",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; packed if it ends in .gz.", show_default="stdout")
    ] = None,
) -> None:
    """Write one model's demand as timestamp,value lines, which backtest, forecast and simulate read."""
    from autoscaler.store import StoreFile
    from forecaster.errors import EventError, SeriesError
    from forecaster.events import span_s
    from forecaster.history import Quantity

    try:
        wanted, step_s = Quantity(quantity), round(span_s(bin_))
    except ValueError:
        raise typer.BadParameter(f"{quantity!r}: there are {', '.join(Quantity)}", param_hint="--quantity") from None
    except EventError:
        raise typer.BadParameter(f"{bin_!r}: write whole minutes, such as 5m", param_hint="--bin") from None
    with _opened(lambda: StoreFile.open_for_reading(path_of(store))) as file:
        bins, models = file.bins(model, 0.0), file.models()
    if not bins:
        raise StartError(f"no demand of {model!r} is known; models with demand: {', '.join(models) or 'none'}")
    try:
        lines = rows_of(series_of(bins, wanted, step_s))
    except SeriesError:
        raise typer.BadParameter(f"{bin_!r}: write whole minutes, such as 5m", param_hint="--bin") from None
    _write_lines(lines, out)


# ---------------------------------------------------------------------- what it says


def told(imported: Imported, model: str, now_s: float) -> list[str]:
    """What came of an import, in sentences."""
    if not imported.stored + imported.kept:
        return [f"{model}: nothing was stored: no minute that has ended has all of its quantities"]
    span = f"{_day(imported.first_s)} to {_day(imported.last_s)}"
    lines = [f"{model}: {imported.stored} minutes stored, {span}"]
    if imported.kept:
        lines.append(f"{imported.kept} were known already and stayed (--replace overwrites them)")
    if imported.unknown:
        lines.append(f"{imported.unknown} minutes between them are unknown and stay gaps")
    if imported.first_s < now_s - _RETENTION_S:
        lines.append("what is older than store.history (56 days unless the policy says more) goes when the daemon runs")
    return lines


def summary(model: str, bins: Sequence[Bin]) -> dict[str, object]:
    """One model, of which at least one minute is known."""
    requests = [one.requests for one in bins]
    total = sum(requests)
    minutes = (bins[-1].start_s - bins[0].start_s) // 60 + 1
    return {
        "model": model,
        "from": _instant(bins[0].start_s),
        "to": _instant(bins[-1].start_s + 60),
        "minutes": len(bins),
        "known_ratio": len(bins) / minutes,
        "requests_per_minute": total / len(bins),
        "peak_requests_per_minute": max(requests),
        "prompt_tokens_per_request": sum(one.prompt_tokens for one in bins) / total if total else None,
        "output_tokens_per_request": sum(one.output_tokens for one in bins) / total if total else None,
    }


def series_of(bins: Sequence[Bin], quantity: Quantity, step_s: int) -> Series:
    """One quantity of at least one minute; wider bins begin on their own multiples. Raises SeriesError."""
    import numpy as np

    from forecaster.series import Series

    start_s = bins[0].start_s // step_s * step_s
    values = np.full((-(-(bins[-1].start_s + 60) // step_s) * step_s - start_s) // 60, np.nan)
    values[[(one.start_s - start_s) // 60 for one in bins]] = [getattr(one, quantity.value) for one in bins]
    return Series(start_s, 60, values).binned(step_s)


def rows_of(series: Series) -> Iterator[str]:
    """`timestamp,value` lines."""
    yield "timestamp,value\n"
    for index, value in enumerate(series.values.tolist()):
        text = "" if value != value else f"{value:.10g}"
        yield f"{_instant(series.start_s + index * series.step_s)},{text}\n"


def _print_table(found: Sequence[Mapping[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Demand history (UTC)", title_justify="left")
    for name in ("Model", "From", "To", "Known", "Requests/min", "Peak/min", "Prompt tokens", "Output tokens"):
        table.add_column(name, justify="left" if name in ("Model", "From", "To") else "right", overflow="fold")
    for one in found:
        table.add_row(
            str(one["model"]),
            *(str(one[name])[:16].replace("T", " ") for name in ("from", "to")),
            f"{one['known_ratio']:.1%}",
            *(f"{one[name]:.6g}" for name in ("requests_per_minute", "peak_requests_per_minute")),
            *(
                "-" if one[name] is None else f"{one[name]:.6g}"
                for name in ("prompt_tokens_per_request", "output_tokens_per_request")
            ),
        )
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def _day(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def _instant(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------------- what it reads and writes


def path_of(store: Path) -> Path:
    """The file of a store that was named by its file or its directory. Raises StartError."""
    from autoscaler.store import STORE_FILE

    if store.is_dir():
        return store / STORE_FILE
    if not store.suffix and not store.exists():
        raise StartError(
            f"{store} is not there: name the daemon's store.directory, or the {STORE_FILE} in it", EXIT_BAD_INPUT
        )
    return store


def _means(text: str | None, missing: Sequence[Quantity]) -> dict[Quantity, float]:
    """Mean tokens per request of the quantities that have no source."""
    from forecaster.history import Quantity

    if text is None:
        if missing:
            named = " and ".join(f"--{quantity.value.replace('_', '-')}" for quantity in missing)
            raise typer.BadParameter(
                f"give {named}, or --tokens-per-request PROMPT,OUTPUT: capacity is counted in tokens, too",
                param_hint="--requests",
            )
        return {}
    try:
        prompt, output = (float(part) for part in text.split(","))
    except ValueError:
        prompt = output = -1.0
    if not (0.0 <= prompt <= 1e9 and 0.0 <= output <= 1e9):
        raise typer.BadParameter(f"{text!r}: write two means, such as 900,250", param_hint="--tokens-per-request")
    means = {Quantity.PROMPT_TOKENS: prompt, Quantity.OUTPUT_TOKENS: output}
    return {quantity: mean for quantity, mean in means.items() if quantity in missing}


def _read(sources: Mapping[Quantity, Source], days: float | None) -> dict[Quantity, Series]:
    from autoscaler.commands.prometheus import pieces

    steps = len(sources) * (1 if days is None else pieces(days))
    with _bar("reading", steps) as advance:
        return {quantity: read(lambda: advance(1)) for quantity, read in sources.items()}


def _writable(path: Path, now_s: float) -> StoreFile:
    """A store to write to, made if there is none. A file that is none is left as it is."""
    from autoscaler.store import StoreFile

    if path.exists():
        # The daemon sets a damaged store aside; here another file may have been named by mistake.
        StoreFile.open_for_reading(path).close()
    return StoreFile.open(path, wall=now_s)


@contextmanager
def _opened(open_: Callable[[], StoreFile]) -> Iterator[StoreFile]:
    """A store for the time of a command, and its troubles in one line."""
    from autoscaler.store import StoreError

    try:
        file = open_()
        try:
            yield file
        finally:
            file.close()
    except StoreError as error:
        raise StartError(str(error)) from None
    except sqlite3.Error as error:
        raise StartError(f"the store failed: {error}; if a daemon is busy with it, try again") from None


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, of a terminal only; the answer moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps: progress.advance(task, steps)


def _write_lines(lines: Iterator[str], out: Path | None) -> None:
    """A file appears whole or not at all."""
    if out is None:
        sys.stdout.writelines(lines)
        return
    part = out.with_name(f"{out.name}.part")
    try:
        with gzip.open(part, "wt") if out.suffix == ".gz" else part.open("w") as file:
            file.writelines(lines)
        part.replace(out)
    except OSError as error:
        raise StartError(f"{out}: {error.strerror or error}", EXIT_BAD_INPUT) from None
