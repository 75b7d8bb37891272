"""The document that commands and services answer with."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.action import Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.actuator import ActuatorError, Observation
from autoscaler.fleet import Phase, Stage
from autoscaler.wire import found_ready, read_observation, verb
from lb.endpoint import Endpoint


def read(document: object, now: float = 100.0) -> tuple[Observation, list[str]]:
    return read_observation(json.dumps(document).encode(), now, "it")


def test_everything_arrives() -> None:
    seen, faults = read(
        {
            "replicas": [
                {
                    "id": "r1", "phase": "ready", "kind": "h100", "start_id": "chat-1", "url": "https://gpu-7:8443/v",
                    "models": ["m"], "phase_age": 10, "stage_ages": {"warm": 10, "node": 90.5}, "protected": True,
                    "detail": "well",
                },
                {"id": "r2", "phase": "starting"},
            ],
            "complete": False,
            "wanted_by_others": 4,
            "full": ["spot"],
        }
    )  # fmt: skip
    first, second = seen.replicas
    assert first.endpoint == Endpoint("r1", "gpu-7", 8443, tls=True, base_path="/v", models=("m",))
    assert (first.fact.kind, first.fact.start_id, first.fact.protected) == ("h100", "chat-1", True)
    assert (first.fact.since_s, dict(first.fact.stages)) == (90.0, {Stage.WARM: 90.0, Stage.NODE: 9.5})
    assert first.detail == "well"
    assert (second.fact.phase, second.fact.since_s, second.endpoint) == (Phase.STARTING, None, None)
    assert (seen.at, seen.complete, seen.wanted_by_others, seen.full) == (100.0, False, 4, {"spot"})
    assert faults == []


@pytest.mark.parametrize(
    ("replica", "fault"),
    [
        ({"phase": "ready"}, "missing required field `id`"),
        ({"id": "", "phase": "ready"}, "length >= 1"),
        ({"id": "a", "phase": "redy"}, "Invalid enum value 'redy' - at `$.phase`"),
        ({"id": "a", "phase": "ready", "prot": True}, "unknown field `prot`"),
        ({"id": "a", "phase": "ready", "phase_age": -1}, "`$.phase_age`"),
        ({"id": "a", "phase": "ready", "stage_ages": {"warmed": 1}}, "Invalid enum value 'warmed'"),
        ({"id": "a", "phase": "ready", "url": "gpu-7:8000"}, "does not start with http://"),
        ({"id": "ok", "phase": "ready"}, "id = 'ok' is listed twice"),
        (7, "Expected `object`, got `int`"),
    ],
)
def test_a_replica_that_cannot_be_read_makes_the_rest_incomplete(replica: object, fault: str) -> None:
    seen, faults = read({"replicas": [{"id": "ok", "phase": "ready"}, replica]})
    assert [one.fact.id for one in seen.replicas] == ["ok"]
    assert not seen.complete
    assert len(faults) == 1
    assert faults[0].startswith("replicas[1]")
    assert fault in faults[0]


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_an_observation_or_an_error(data: bytes) -> None:
    told = ""
    try:
        seen, _ = read_observation(data, 1.0, "it")
    except ActuatorError as error:
        seen, told = None, str(error)
    assert told.startswith("it did not answer with a list of replicas") if seen is None else seen.at == 1.0


def test_deep_nesting_is_an_error() -> None:
    deep = b'{"replicas": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}"
    with pytest.raises(ActuatorError):
        read_observation(deep, 1.0, "it")


def test_actions_have_their_names() -> None:
    actions = (
        ScaleUp("p", "k", ("a",), 1, "r"), Drain("p", "a", 1.0, "r"), Undrain("p", "a", "r"), Stop("p", "a", 0, "r"),
        GiveUp("p", "a", None, 0, "r"),
    )  # fmt: skip
    assert [verb(action) for action in actions] == ["scale_up", "drain", "undrain", "stop", "give_up"]


@pytest.mark.parametrize(
    ("start_id", "replica", "found"),
    [("chat-1", None, True), (None, "r1", True), ("chat-1", "r9", True), ("chat-2", "r2", False), (None, None, False)],
)
def test_a_start_that_became_ready_is_found_by_either_name(
    start_id: str | None, replica: str | None, found: bool
) -> None:
    replicas = [
        {"id": "r1", "phase": "ready", "start_id": "chat-1"},
        {"id": "r2", "phase": "starting", "start_id": "chat-2"},
        {"id": "r3", "phase": "ready"},
    ]
    assert found_ready(GiveUp("p", start_id, replica, 0, "r"), read({"replicas": replicas})[0]) is found
