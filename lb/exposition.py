"""Prometheus text, read for a few names only.

A vLLM exposition has 700 lines of which ten matter, and is read twice a second from every replica; so this looks for
the lines that begin with a wanted name and leaves the rest alone. Format: the Prometheus text format 0.0.4 and
OpenMetrics 1.0; timestamps and exemplars are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_BYTES = 1 << 20
"""Most text that is read of one exposition: twenty times vLLM's largest, small enough to scan in milliseconds."""
MAX_SERIES = 1024
"""Most samples of one name: 64 data-parallel ranks times 16 models. More is an accident, and is refused."""

_LABEL = re.compile(rb'[\s,]*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"')
_CLOSE = re.compile(rb"[\s,]*\}")
_ESCAPE = re.compile(rb"\\(.)")
_ESCAPED = {b"n": b"\n"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One line. `value` is NaN where the line could not be read."""

    labels: dict[str, str]
    value: float


class TooManySeriesError(ValueError):
    """More than MAX_SERIES samples of one name."""


def read_samples(text: bytes, names: Iterable[str], *, truncated: bool = False) -> dict[str, list[Sample]]:
    """Samples of each wanted name, in the order of the text; names that do not occur are not in the result.

    With `truncated`, a last line without its newline is left out, as its value may be cut. Raises TooManySeriesError.
    """
    if len(text) > MAX_BYTES:
        text, truncated = text[:MAX_BYTES], True
    if truncated:
        text = text[: text.rfind(b"\n") + 1]
    found: dict[str, list[Sample]] = {}
    for name in names:
        samples = [_sample(text, start) for start in _starts(text, name)]
        if samples:
            found[name] = samples
    return found


def _starts(text: bytes, name: str) -> list[int]:
    """Where the name ends in each line that begins with it. A longer name that begins alike is another metric:
    `vllm:num_requests_waiting` is not `vllm:num_requests_waiting_by_reason`."""
    wanted = name.encode()
    starts = []
    if text.startswith(wanted) and text[len(wanted) : len(wanted) + 1] in (b"{", b" ", b"\t"):
        starts.append(len(wanted))
    needle = b"\n" + wanted
    at = text.find(needle)
    while at >= 0:
        end = at + len(needle)
        if text[end : end + 1] in (b"{", b" ", b"\t"):
            starts.append(end)
            if len(starts) > MAX_SERIES:
                raise TooManySeriesError(f"more than {MAX_SERIES} samples of {name}")
        at = text.find(needle, end)
    return starts


def _sample(text: bytes, start: int) -> Sample:
    end = text.find(b"\n", start)
    line = text[start : end if end >= 0 else len(text)]
    labels: dict[str, str] = {}
    at = 0
    if line.startswith(b"{"):
        at = 1
        while match := _LABEL.match(line, at):
            value = match[2]
            if b"\\" in value:
                value = _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[1]), value)
            labels[match[1].decode()] = value.decode(errors="replace")
            at = match.end()
        close = _CLOSE.match(line, at)
        if close is None:
            return Sample(labels, math.nan)
        at = close.end()
    return Sample(labels, _number(line[at:].split(None, 1)))


def _number(parts: list[bytes]) -> float:
    # Python reads 1_000 as a number, the format does not.
    if not parts or b"_" in parts[0]:
        return math.nan
    try:
        return float(parts[0])
    except ValueError:
        return math.nan
