"""Logs of replicas: bounded in size and number, and what they ended with."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

_TAIL_BYTES = 2000
"""What is told of a failed start: a Python traceback's last screen."""
_KEPT = 20
"""Logs of replicas that are gone, by pool: the failures of a bad night."""


def cut(path: Path, limit_bytes: int) -> None:
    """Empty a log that is too long, keeping what it held as `.log.1`.

    Its writer goes on: it appends, so that what it writes next is at the new beginning. The few lines written between
    copying and emptying are lost, which is the price of not standing between a replica and its log.
    """
    try:
        if path.stat().st_size <= limit_bytes:
            return
    except OSError:
        return
    with suppress(OSError):  # a full disk is one more reason to empty it
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    with suppress(OSError):
        os.truncate(path, 0)


def tail(path: Path) -> str:
    """Its last lines, in one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"(its log cannot be read: {error.strerror})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines) or "(it said nothing)"


def prune(folder: Path) -> None:
    """Remove the oldest logs of replicas that have no record any more."""
    ended = [path for path in folder.glob("*.log") if not path.with_suffix(".json").exists()]
    ended.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in ended[_KEPT:]:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.1").unlink(missing_ok=True)
