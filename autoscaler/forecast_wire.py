"""What goes between the daemon and the process that forecasts: a head of JSON, then numbers as they are.

A month of bins as JSON takes longer than the event loop may be held; as bytes they are copied.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from forecaster.event_settings import CalendarSettings, EventFields
from forecaster.quantiles import Forecast
from forecaster.series import Series
from forecaster.settings import ForecastSettings
from forecaster.trust import Change

SIZES = struct.Struct("<II")
"""Bytes of the head, and of the numbers."""
MOST_BYTES = 16 << 20
"""Neither side sends more: 45 days of minutes are half a megabyte. What claims to be larger is garbage."""


class WireError(Exception):
    """What came is no message."""


@dataclass(frozen=True, slots=True)
class Setup:
    """First message to the process: all that it needs to know."""

    settings: ForecastSettings
    events: tuple[EventFields, ...]
    calendars: tuple[CalendarSettings, ...]
    base: str
    """Where relative names of calendars lie."""
    memory_bytes: int

    def pack(self) -> bytes:
        return _packed(
            {
                "settings": asdict(self.settings),
                "events": [one.model_dump(mode="json", by_alias=True) for one in self.events],
                "calendars": [one.model_dump(mode="json", by_alias=True) for one in self.calendars],
                "base": self.base,
                "memory_bytes": self.memory_bytes,
            }
        )

    @classmethod
    def unpack(cls, head: bytes, body: bytes) -> Setup:
        fields = _head(head)
        return cls(
            ForecastSettings(**_tuples(fields["settings"])),
            tuple(EventFields.model_validate(one) for one in fields["events"]),
            tuple(CalendarSettings.model_validate(one) for one in fields["calendars"]),
            fields["base"],
            fields["memory_bytes"],
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """Learn these bins of a pool, and forecast."""

    pool: str
    begin: bool
    """Forget what was known of the pool: the bins are all of its history."""
    now_s: float
    """Epoch seconds."""
    series: Series
    pools: tuple[str, ...]
    """All that there are; what is known of others is forgotten."""

    def pack(self) -> bytes:
        head = {
            "pool": self.pool, "begin": self.begin, "now_s": self.now_s,
            "start_s": self.series.start_s, "step_s": self.series.step_s, "pools": self.pools,
        }  # fmt: skip
        return _packed(head, self.series.values.astype("<f8").tobytes())

    @classmethod
    def unpack(cls, head: bytes, body: bytes) -> Ask:
        fields = _head(head)
        values = np.frombuffer(body, "<f8").astype(np.float64)
        series = Series(fields["start_s"], fields["step_s"], values)
        return cls(fields["pool"], fields["begin"], fields["now_s"], series, tuple(fields["pools"]))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    forecast: Forecast | None = None
    changes: tuple[Change, ...] = ()
    """How the gate moved."""
    problems: tuple[str, ...] = ()
    """What is wrong with calendars and limits; forecasts are made all the same."""
    error: str = ""
    """Why there is no forecast. What was known of the pool is forgotten."""
    cpu_s: float = 0.0
    rss_bytes: int = 0

    def pack(self) -> bytes:
        return _packed(asdict(self))

    @classmethod
    def unpack(cls, head: bytes, body: bytes) -> Answer:
        """Raises WireError."""
        try:
            answer = _ANSWER.validate_json(head)
        except ValidationError as error:
            raise WireError(f"no answer: {error.errors(include_url=False)[0]['msg']}") from None
        made = answer.forecast
        if made is not None and not (made.step_s > 0 and len(made.values) == len(made.horizons_s)):
            raise WireError("an answer with a forecast that lacks a part")
        return answer


_ANSWER = TypeAdapter(Answer)


def sizes_of(data: bytes) -> tuple[int, int]:
    """Bytes of head and numbers that follow. Raises WireError."""
    head, body = SIZES.unpack(data)
    if max(head, body) > MOST_BYTES:
        raise WireError("a message that is too long to be one")
    return head, body


def _packed(head: Mapping[str, object], body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return SIZES.pack(len(text), len(body)) + text + body


def _head(data: bytes) -> dict[str, Any]:
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise WireError("a head that is no mapping")
    return fields


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where records have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
