"""Options that commands on a series share: what they mean, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from autoscaler.errors import EXIT_BAD_INPUT, EXIT_FAILURE, StartError
from forecaster.errors import EventError, ForecastError

if TYPE_CHECKING:
    from forecaster.series import Series

HORIZONS = "5m,15m,30m,60m"
QUANTILES = "0.5,0.9,0.95,0.99"


def one_thread(environment: MutableMapping[str, str]) -> None:
    """Keep linear algebra from starting a thread per core for matrices of a few rows, which costs more than it brings.
    Only of use before numpy is imported."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        environment.setdefault(name, "1")


def seconds_of(text: str, option: str) -> int:
    """`5m` in whole seconds."""
    from forecaster.events import span_s

    try:
        seconds = span_s(text)
    except EventError:
        seconds = 0.5
    if seconds != round(seconds):
        raise typer.BadParameter(f"{text!r}: write a span of whole seconds, such as 5m or 1h", param_hint=option)
    return round(seconds)


def horizons_of(text: str) -> tuple[float, ...]:
    """`5m,15m` in seconds, ascending."""
    horizons = [float(seconds_of(part.strip(), "--horizons")) for part in text.split(",") if part.strip()]
    if not horizons or horizons != sorted(set(horizons)) or horizons[-1] > 86_400:
        raise typer.BadParameter(
            f"{text!r}: write ascending spans up to 24h, such as {HORIZONS}", param_hint="--horizons"
        )
    return tuple(horizons)


def quantiles_of(text: str) -> tuple[float, ...]:
    """`0.5,0.9`, ascending."""
    try:
        quantiles = [float(part) for part in text.split(",")]
    except ValueError:
        quantiles = []
    if not quantiles or quantiles != sorted(set(quantiles)) or not 0.0 < quantiles[0] <= quantiles[-1] < 1.0:
        wanted = f"write ascending numbers between 0 and 1, such as {QUANTILES}"
        raise typer.BadParameter(f"{text!r}: {wanted}", param_hint="--quantiles")
    return tuple(quantiles)


def series_from(path: Path) -> Series:
    """Raises StartError with the lines that are wrong."""
    from autoscaler.series_file import load_series

    with refused():
        return load_series(path)


@contextmanager
def refused() -> Iterator[None]:
    """What the forecaster refuses is wrong input."""
    try:
        yield
    except ForecastError as error:
        raise StartError(str(error), EXIT_BAD_INPUT) from None


def check_outputs(paths: Iterable[Path | None]) -> None:
    """Say now, and not after minutes, that a file cannot be written."""
    for path in paths:
        if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise StartError(f"{path}: is a directory, or its directory is missing or not writable", EXIT_BAD_INPUT)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Troubles with an output file, in one line."""
    try:
        yield
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}", EXIT_FAILURE) from None
    except ValueError as error:  # matplotlib's word on a format that it does not know
        raise StartError(f"{path}: {error}", EXIT_BAD_INPUT) from None
