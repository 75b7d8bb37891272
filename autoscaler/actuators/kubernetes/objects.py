"""Reading of objects as the API returns them. Pure; whatever is missing or of the wrong type is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

Object = Mapping[str, Any]
_NOTHING: Object = {}


def part(value: Object, *path: str) -> Object:
    """A nested mapping; empty if it is not there."""
    for key in path:
        found = value.get(key)
        if not isinstance(found, Mapping):
            return _NOTHING
        value = found
    return value


def items(value: Object, *path: str) -> tuple[Object, ...]:
    """A nested list of mappings."""
    found = part(value, *path[:-1]).get(path[-1])
    return tuple(one for one in found if isinstance(one, Mapping)) if isinstance(found, list) else ()


def text(value: Object, *path: str) -> str:
    found = part(value, *path[:-1]).get(path[-1])
    return found if isinstance(found, str) else ""


def count(value: Object, *path: str) -> int:
    found = part(value, *path[:-1]).get(path[-1])
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def name(value: Object) -> str:
    return text(value, "metadata", "name")


def uid(value: Object) -> str:
    return text(value, "metadata", "uid")


def version(value: Object) -> str:
    return text(value, "metadata", "resourceVersion")


def notes(value: Object) -> Mapping[str, str]:
    return part(value, "metadata", "annotations")


def condition(value: Object, kind: str) -> Object:
    """One of `status.conditions`; empty if there is none of that type."""
    return next((one for one in items(value, "status", "conditions") if one.get("type") == kind), _NOTHING)


def holds(value: Object, kind: str) -> bool:
    return condition(value, kind).get("status") == "True"


def epoch_s(stamp: object) -> float | None:
    """Seconds since 1970 of an API timestamp; None if it is none."""
    if not isinstance(stamp, str):
        return None
    try:
        parsed = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def quantity(value: object) -> float:
    """A resource quantity that is a count, such as GPUs: plain or with `k`, `m`; 0 if it is none."""
    try:
        if isinstance(value, str) and value.endswith("m"):
            return float(value[:-1]) / 1000.0
        if isinstance(value, str) and value.endswith("k"):
            return float(value[:-1]) * 1000.0
        return float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return 0.0


def by_uid(objects: Iterable[Object]) -> dict[str, Object]:
    return {uid(one): one for one in objects}
