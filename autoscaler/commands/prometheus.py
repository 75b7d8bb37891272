"""History out of Prometheus: `query_range`, in pieces that every server allows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from math import isfinite
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import numpy as np

from autoscaler.commands.experiment import InputError
from forecaster.series import Series

_STEP_S = 60
_PIECE = 10_000
"""Points of one answer; Prometheus refuses more than 11,000."""
_TIMEOUT_S = 60.0
_MOST_BYTES = 64 << 20
_MOST_REFUSAL_BYTES = 64 << 10


def pieces(days: float) -> int:
    """Requests that `fetch` makes."""
    return max(1, -(-(int(days * 86_400) // _STEP_S) // _PIECE))


def fetch(url: str, query: str, days: float, *, progress: Callable[[], None] = lambda: None) -> Series:
    """The last `days` of a query, a value a minute; NaN where there is none. Several series are added up.

    A value at an instant is taken for the minute before it, which is what `rate(...[1m])` gives. `progress` is called
    after each piece. Raises InputError.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"--prometheus {url!r}: write http://host:port")
    count = int(days * 86_400) // _STEP_S
    end = int(time.time()) // _STEP_S * _STEP_S
    start = end - (count - 1) * _STEP_S
    values = np.full(count, np.nan)
    for first in range(0, count, _PIECE):
        last = min(first + _PIECE, count) - 1
        for at, value in _piece(url, query, start + first * _STEP_S, start + last * _STEP_S):
            index = round((at - start) / _STEP_S)
            if 0 <= index < count and isfinite(value) and value >= 0.0:
                values[index] = value if np.isnan(values[index]) else values[index] + value
        progress()
    if int((~np.isnan(values)).sum()) < 2:
        raise InputError(f"the query {query!r} gave no usable value in the last {days:g} days")
    return Series(start - _STEP_S, _STEP_S, values)


def _piece(url: str, query: str, start: int, end: int) -> list[tuple[float, float]]:
    asked = urlencode({"query": query, "start": start, "end": end, "step": _STEP_S})
    try:
        # The scheme was checked: http or https.
        with urlopen(f"{url.rstrip('/')}/api/v1/query_range?{asked}", timeout=_TIMEOUT_S) as answer:  # noqa: S310
            body = json.loads(answer.read(_MOST_BYTES))
        return [(float(at), float(value)) for one in body["data"]["result"] for at, value in one["values"]]
    except HTTPError as error:
        raise InputError(f"--prometheus {url}: {_refusal(error)}") from None
    except URLError as error:
        raise InputError(f"--prometheus {url}: {error.reason}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--prometheus {url}: not an answer of Prometheus ({error})") from None


def _refusal(error: HTTPError) -> str:
    """What Prometheus says of a query that it cannot answer."""
    try:
        said = json.loads(error.read(_MOST_REFUSAL_BYTES))["error"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"
    return f"{error.code}: {str(said)[:500]}"
