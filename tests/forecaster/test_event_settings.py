"""Events as settings: one line or fields, and what an editor and a refused policy show."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from forecaster.event_settings import CalendarSettings, EventFields, EventSettings
from forecaster.events import event_of

LINE = "2026-12-01 09:00 Europe/Berlin for 3h, +40..120 %, launch"
FIELDS = {"at": "2026-12-01 09:00 Europe/Berlin", "for": "3h", "demand": "+40..120 %", "name": "launch"}
READ: TypeAdapter[EventFields] = TypeAdapter(EventSettings)


def test_a_line_and_its_fields_are_the_same_event() -> None:
    assert READ.validate_python(LINE) == READ.validate_python(FIELDS)
    assert READ.validate_python(FIELDS).event() == event_of(LINE)


def test_it_is_written_as_it_is_read() -> None:
    written = READ.dump_python(READ.validate_python(LINE), mode="json", by_alias=True)
    assert written == FIELDS
    assert READ.validate_python(written).event() == event_of(LINE)


@pytest.mark.parametrize(
    ("value", "where", "says"),
    [
        ("next week", (), "write when, how long, how much"),
        (LINE.replace("Berlin", "Bonn"), ("at",), "'Europe/Bonn' is not a time zone"),
        ({**FIELDS, "for": "long"}, ("for",), "write 90m, 3h"),
        ({**FIELDS, "demand": "40 %"}, ("demand",), "write +40..120 %"),
        ({**FIELDS, "every": "day"}, ("every",), "not permitted"),
        ({"at": FIELDS["at"]}, ("for",), "required"),
        (12, (), "EventFields"),
    ],
)
def test_a_mistake_is_told_with_its_field(value: object, where: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        READ.validate_python(value)
    first = caught.value.errors()[0]
    assert first["loc"] == where
    assert says in first["msg"]


def test_an_editor_offers_the_line_and_the_fields() -> None:
    schema = READ.json_schema()
    assert schema["anyOf"][0] == {"type": "string"}
    fields = schema["$defs"]["EventFields"]["properties"]
    assert set(fields) == set(FIELDS)
    assert all(field.get("description") for field in fields.values())


def test_a_calendar_may_have_a_usual_change() -> None:
    assert CalendarSettings.model_validate({"file": "x.ics"}).usual() is None
    assert CalendarSettings.model_validate({"file": "x.ics", "demand": "x2..3"}).usual() == (2.0, 3.0)
    with pytest.raises(ValidationError, match="is not a time zone"):
        CalendarSettings.model_validate({"file": "x.ics", "zone": "Mars/Olympus"})
    with pytest.raises(ValidationError, match="is not a change of demand"):
        CalendarSettings.model_validate({"file": "x.ics", "demand": "more"})
