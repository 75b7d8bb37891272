"""Settings of known events: entries of their own, and calendar files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from forecaster.errors import EventError
from forecaster.events import Event, instant_s, ratios_of, span_s, split, zone_of


class _Settings(BaseModel):
    """Frozen, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_by_name=True, validate_by_alias=True
    )


def _written(value: object) -> object:
    """The line form to fields."""
    if not isinstance(value, str):
        return value
    try:
        return split(value)
    except EventError as error:
        raise ValueError(str(error)) from None


def _checked(read: Callable[[str], object]) -> AfterValidator:
    """Keeps the text as it is written, if it can be read."""

    def check(text: str) -> str:
        try:
            read(text)
        except EventError as error:
            raise ValueError(str(error)) from None
        return text

    return AfterValidator(check)


_Demand = Annotated[str, _checked(ratios_of)]


class EventFields(_Settings):
    """A known event: from when, for how long, and by how much demand will differ from what it would be otherwise."""

    at: Annotated[str, _checked(instant_s)]
    """Begin, with its time zone: `2026-12-01 09:00 Europe/Berlin`. No default zone, as a guess would be hours off."""
    span: Annotated[str, _checked(span_s), Field(alias="for")]
    """How long: `90m`, `3h`, `2d`."""
    demand: _Demand
    """Change of demand: `+40..120 %`, `+40 %`, `-50 %` or `x2..3`."""
    name: str = Field(default="", max_length=200)
    """Shown where the event is the reason of a decision."""

    def event(self) -> Event:
        start_s = instant_s(self.at)
        low, high = ratios_of(self.demand)
        return Event(start_s, start_s + span_s(self.span), low, high, self.name)


EventSettings = Annotated[EventFields, BeforeValidator(_written, json_schema_input_type=str | EventFields)]
"""An event in one line, `2026-12-01 09:00 Europe/Berlin for 3h, +40..120 %, launch`, or by its fields."""


class CalendarSettings(_Settings):
    """Known events in an iCalendar file (.ics)."""

    file: Path
    """Read at start, on reload, and when it changes."""
    demand: _Demand | None = None
    """Change of demand of entries that do not give their own (`demand: +40..120 %` in the description). Without it only
    entries that do count, since most entries of a calendar are meetings."""
    zone: Annotated[str, _checked(zone_of)] = "UTC"
    """Time zone of entries that name none, in a calendar that names none either."""

    def usual(self) -> tuple[float, float] | None:
        """(low, high) ratio for `forecaster.ics.read_calendar`."""
        return None if self.demand is None else ratios_of(self.demand)
