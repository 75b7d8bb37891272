"""A node's snapshot as JSON, for peers and for people. Pure.

Two machines share no clock, so times travel as ages: `age_s` of the snapshot, and `age_s` of each card. The reader
turns
them back into times of its own clock, less the time the message was under way.

Version 1. A reader takes messages of its own version and ignores keys it does not know, so fields may be added
within a version.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, is_dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nvml.errors import WireError
from nvml.sample import NodeSnapshot

VERSION = 1
MAX_BYTES = 4 << 20  # 32 cards with 256 processes each are below 3 MiB; more is not a snapshot

_NODE = TypeAdapter(NodeSnapshot)


def to_dict(node: NodeSnapshot, now: float) -> dict[str, Any]:
    """The JSON object, as Python values. `now`: this machine's monotonic seconds."""
    body = asdict(node)
    body["age_s"] = node.age_s(now)
    del body["taken_at"]
    for gpu, view in zip(body["gpus"], node.gpus, strict=True):
        gpu["age_s"] = view.age_s(now)
        gpu["takes_new_work"] = view.takes_new_work
        del gpu["taken_at"]
    return {"version": VERSION, **body}


def encode(node: NodeSnapshot, now: float) -> bytes:
    return json.dumps(to_dict(node, now), separators=(",", ":"), allow_nan=False).encode()


def decode(message: bytes, received_at: float) -> NodeSnapshot:
    """The snapshot with times on the reader's clock. `received_at`: the reader's monotonic seconds when the request
    was *sent*,
    so that the time under way counts as age. Raises WireError."""
    if len(message) > MAX_BYTES:
        raise WireError(f"the snapshot has {len(message)} bytes; at most {MAX_BYTES} are read")
    try:
        body = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the snapshot is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise WireError(f"the snapshot is a JSON {type(body).__name__}; an object was expected")
    if body.get("version") != VERSION:
        raise WireError(f"version is {body.get('version')!r}; this reader knows version {VERSION}")
    _ages_to_times(body, "", received_at)
    gpus = body.get("gpus", [])
    if not isinstance(gpus, list):
        raise WireError("gpus is not a list")
    for index, gpu in enumerate(gpus):
        if not isinstance(gpu, dict):
            raise WireError(f"gpus[{index}] is not an object")
        _ages_to_times(gpu, f"gpus[{index}].", received_at)
    try:
        node = _NODE.validate_python(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WireError(f"{where}: {first['msg']}") from error
    _refuse_non_finite(node, "")
    return replace(node, gpus=tuple(node.gpus))


def _ages_to_times(body: dict[str, Any], where: str, received_at: float) -> None:
    age = body.pop("age_s", None)
    if not isinstance(age, int | float) or isinstance(age, bool) or not 0 <= age < math.inf:
        raise WireError(f"{where}age_s is {age!r}; seconds of age, zero or more, were expected")
    body["taken_at"] = received_at - age


def _refuse_non_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise WireError(f"{where}: {value} is not a number")
    if is_dataclass(value):
        for name in value.__dataclass_fields__:
            _refuse_non_finite(getattr(value, name), f"{where}.{name}".lstrip("."))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")
