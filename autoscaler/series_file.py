"""Series in files, packed or not."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from forecaster.errors import SeriesError
from forecaster.readings import read_series
from forecaster.series import Series

# Of a packed file that is cut off or damaged, and of bytes that are no text.
_BROKEN = (OSError, EOFError, zlib.error, UnicodeDecodeError)


def open_text(path: Path) -> io.TextIOBase:
    """A text file, unpacked if its name ends in .gz. Raises OSError."""
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8")
    return path.open(encoding="utf-8")


def load_series(path: Path, read: Callable[[Iterable[str]], Series] = read_series) -> Series:
    """`timestamp,value` lines of a .csv or .csv.gz file, see `forecaster.readings`. SeriesError names the path."""
    try:
        with open_text(path) as file:
            return read(file)
    except SeriesError as error:
        raise SeriesError(f"{path}: {error}") from None
    except _BROKEN as error:
        raise SeriesError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
