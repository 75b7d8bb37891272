"""Reading of objects as the API returns them. Pure; whatever is missing or of the wrong type is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

Object = Mapping[str, Any]
_NOTHING: Object = {}
_FACTORS = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)(n|u|m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|)\Z")


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
    """A resource quantity (`8`, `500m`, `80Gi`) as a number; 0 if it is none.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    if isinstance(value, int | float):
        return float(value)
    match = _QUANTITY.match(value) if isinstance(value, str) else None
    return float(match[1]) * _FACTORS[match[2]] if match is not None else 0.0


def by_uid(objects: Iterable[Object]) -> dict[str, Object]:
    return {uid(one): one for one in objects}
