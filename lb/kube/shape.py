"""Which fields of an object are of interest; all others are skipped while an answer is read. Pure.

A pod is 5 kB of JSON or more, of which discovery needs a tenth. Read whole, a page of them takes ten times as long, in
which no request is served, and ten times the memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec

Decode = Callable[[bytes], Any]


class Metadata(TypedDict, total=False):
    """What a copy of a collection needs, and what labels and annotations tell."""

    name: Any
    namespace: Any
    uid: Any
    resourceVersion: Any
    deletionTimestamp: Any
    labels: Any
    annotations: Any


@dataclass(frozen=True, slots=True)
class Shape:
    """How answers about one kind of object are read. Raises ValueError for what is no JSON."""

    page: Decode
    """Of a list."""
    event: Decode
    """Of a watch."""


WHOLE = Shape(json.loads, json.loads)
"""Every field."""


def shape_of(kind: type) -> Shape:
    """Only the fields of this TypedDict, whose `metadata` is a `Metadata`.

    An answer that does not fit (an error, where an object was expected) is read whole.
    """
    # Not classes: their annotations would be names, which cannot be looked up from here.
    items: Any = list[kind] | None  # type: ignore[valid-type]
    page = TypedDict("page", {"kind": Any, "metadata": Any, "items": items}, total=False)  # noqa: UP013
    event = TypedDict("event", {"type": Any, "object": kind}, total=False)  # type: ignore[valid-type]  # noqa: UP013
    return Shape(_lenient(page), _lenient(event))


def _lenient(form: Any) -> Decode:
    decoder = msgspec.json.Decoder(form)

    def decode(data: bytes) -> Any:
        try:
            found: Any = decoder.decode(data)
        except msgspec.MsgspecError:
            return json.loads(data)
        # An error says more than an object's fields do.
        return json.loads(data) if found.get("type") == "ERROR" else found

    return decode
