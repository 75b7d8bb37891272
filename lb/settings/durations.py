"""Units as operators write them: `30s`, `1m30s`, `64KiB`. In code they are `_s` floats and `_bytes` integers.

A policy file is validated with `context=STRICT_UNITS`, which refuses a bare number where a duration belongs; code may
give seconds.
"""

from __future__ import annotations

import re
from typing import Annotated

import durationpy
from pydantic import BeforeValidator, PlainSerializer, ValidationInfo

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?$")
_SIZE_FACTOR = {
    None: 1, "B": 1, "kB": 1000, "KB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2, "GB": 1000**3, "GiB": 1024**3,
}  # fmt: skip
_LONGEST_S = 366 * 24 * 3600.0
STRICT_UNITS = {"strict_units": True}


def duration_s(value: object, info: ValidationInfo) -> object:
    """`30s`, `1m30s`, `500ms`, `0` to seconds."""
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        if value and info.context and info.context.get("strict_units"):
            raise ValueError(f"{value} has no unit; write it as a duration such as {value}s")
        return float(value)
    if not isinstance(value, str) or len(value) > 40:
        raise ValueError("must be a duration such as 30s, 1m30s or 500ms")
    try:
        seconds = float(durationpy.from_str(value).total_seconds())
    except (durationpy.DurationError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a duration; write 30s, 1m30s or 500ms") from None
    if not 0 <= seconds <= _LONGEST_S:
        raise ValueError(f"{value!r} is out of range; durations go from 0 to 366 days")
    return seconds


def size_bytes(value: object) -> object:
    """`64KiB`, `16MiB`, `1000` to bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.match(value) if isinstance(value, str) and len(value) < 40 else None
    if match is None:
        raise ValueError(f"{str(value)[:40]!r} is not a size; write 65536, 64KiB or 16MiB")
    return int(float(match[1]) * _SIZE_FACTOR[match[2]])


def _show_s(seconds: float) -> str:
    return f"{seconds:.15g}s"


Seconds = Annotated[
    float,
    BeforeValidator(duration_s, json_schema_input_type=str),
    PlainSerializer(_show_s, return_type=str, when_used="json"),
]
Bytes = Annotated[int, BeforeValidator(size_bytes, json_schema_input_type=int | str)]
