"""What an actuator outside this process is told, and what it answers: JSON, the same for commands and for services.

An action: `{"action": "scale_up", "pool": "chat", "kind": "default", "start_ids": ["chat-1"], "total": 3, "reason":
"..."}`, with the fields of the classes in `autoscaler.action`.

An observation: `{"replicas": [...], "complete": true, "wanted_by_others": null, "full": []}`. A replica:
`{"id": "r1", "phase": "ready", "kind": "default", "start_id": "chat-1", "url": "http://10.0.0.7:8000", "models": [],
"phase_age": 12.5, "stage_ages": {"warm": 12.5}, "protected": false, "detail": ""}`; only `id` and `phase` must be
there. Instants are ages in seconds, since nobody shares our monotonic clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import msgspec

from autoscaler.action import Action, GiveUp
from autoscaler.actuator import ActuatorError, Observation, Observed
from autoscaler.fleet import Phase, ReplicaFact, Stage
from lb.endpoint import Endpoint, parse_url
from lb.errors import SettingsError

ANSWER_BYTES = 4 << 20
"""Longest answer that is read: 10,000 replicas at 400 bytes each."""
_MAX_REPLICAS = 10_000
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")

_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Age = Annotated[float, msgspec.Meta(ge=0)]


class _Replica(msgspec.Struct, forbid_unknown_fields=True):
    id: _Name
    phase: Phase
    kind: _Name = "default"
    start_id: _Name | None = None
    url: Annotated[str, msgspec.Meta(max_length=2000)] | None = None
    models: tuple[_Text, ...] = ()
    phase_age: _Age | None = None
    stage_ages: Mapping[Stage, _Age] = {}
    protected: bool = False
    detail: Annotated[str, msgspec.Meta(max_length=10_000)] = ""


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    replicas: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=_MAX_REPLICAS)]
    complete: bool = True
    wanted_by_others: Annotated[int, msgspec.Meta(ge=0)] | None = None
    full: frozenset[_Name] = frozenset()


_DOCUMENT = msgspec.json.Decoder(_Document)
_REPLICA = msgspec.json.Decoder(_Replica)


def verb(action: Action) -> str:
    """`scale_up`, `drain`, `undrain`, `stop` or `give_up`."""
    return _WORDS.sub("_", type(action).__name__).lower()


def action_document(action: Action) -> dict[str, Any]:
    """An action as JSON values."""
    return {"action": verb(action), **asdict(action)}


def found_ready(action: GiveUp, seen: Observation) -> bool:
    """Whether the start that is to be given up has become ready after all, and must be left alone."""
    names = {action.replica, action.start_id} - {None}
    return any(
        one.fact.phase is Phase.READY and (one.fact.id in names or one.fact.start_id in names) for one in seen.replicas
    )


def read_observation(data: bytes, now: float, who: str) -> tuple[Observation, list[str]]:
    """An answer, and what is wrong with those of its replicas that cannot be read: without them it is incomplete.

    `now`: monotonic instant of the answer. `who` gave it, for the message. Raises ActuatorError if it is no such
    document at all.
    """
    try:
        document = _DOCUMENT.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ActuatorError(
            f"{who} did not answer with a list of replicas: {error}; its answer: {_head(data)}"
        ) from None
    replicas: dict[str, Observed] = {}
    faults: list[str] = []
    for index, raw in enumerate(document.replicas):
        try:
            one = _observed(_REPLICA.decode(raw), now)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, SettingsError) as error:
            faults.append(f"replicas[{index}]: {error}")
            continue
        if one.fact.id in replicas:
            faults.append(f"replicas[{index}].id = {one.fact.id!r} is listed twice")
        replicas.setdefault(one.fact.id, one)
    complete = document.complete and not faults
    seen = Observation(now, tuple(replicas.values()), complete, document.wanted_by_others, document.full)
    return seen, faults


def _observed(one: _Replica, now: float) -> Observed:
    endpoint = None
    if one.url is not None:
        host, port, tls, base_path = parse_url(one.url)
        endpoint = Endpoint(one.id, host, port, tls=tls, base_path=base_path, models=one.models)
    fact = ReplicaFact(
        id=one.id,
        phase=one.phase,
        kind=one.kind,
        start_id=one.start_id,
        stages={stage: now - age_s for stage, age_s in one.stage_ages.items()},
        since_s=None if one.phase_age is None else now - one.phase_age,
        protected=one.protected,
    )
    return Observed(fact, endpoint, one.detail)


def _head(data: bytes) -> str:
    return repr(data[:200].decode(errors="replace"))
