"""Snapshots between machines: nothing is lost, nothing wrong is believed."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvml.drivers.fake import fake_gpu
from nvml.errors import DriverFault, WireError
from nvml.sample import (
    READING_FIELDS,
    FieldFault,
    GpuProcess,
    GpuSnapshot,
    HungCall,
    MigInstance,
    NodeSnapshot,
    Owner,
    Reason,
)
from nvml.wire import MAX_BYTES, decode, encode, to_dict


def snapshot(**values: object) -> NodeSnapshot:
    sample = fake_gpu(0)
    gpu = GpuSnapshot(**{**{name: getattr(sample, name) for name in READING_FIELDS}, "taken_at": 95.0, **values})  # type: ignore[arg-type]
    return NodeSnapshot(taken_at=96.0, gpus=(gpu,), driver_version="570.86.15")


gpus = st.builds(
    GpuSnapshot,
    uuid=st.text(),
    index=st.integers(0, 64),
    taken_at=st.floats(0, 100),
    processes=st.none() | st.lists(st.from_type(GpuProcess), max_size=2).map(tuple),
    mig=st.lists(st.from_type(MigInstance), max_size=2).map(tuple),
    unreadable=st.lists(st.from_type(FieldFault), max_size=2).map(tuple),
    reasons=st.lists(st.from_type(Reason), max_size=2).map(tuple),
    xid_counts=st.lists(st.tuples(st.integers(), st.integers()), max_size=2).map(tuple),
    speed_ratio=st.floats(0, 1),
    utilisation_ratio=st.none() | st.floats(0, 1),
    row_remap_pending=st.none() | st.booleans(),
    energy_j=st.none() | st.floats(0, 1e12),
)
nodes = st.builds(
    NodeSnapshot,
    taken_at=st.floats(0, 100),
    gpus=st.lists(gpus, max_size=3).map(tuple),
    driver_version=st.none() | st.text(),
    fault=st.none() | st.sampled_from(DriverFault),
    detail=st.text(),
    hung=st.none() | st.builds(HungCall, st.text(), st.none() | st.integers(), st.floats(0, 1e6)),
)


@settings(deadline=None)
@given(nodes)
def test_a_round_trip_keeps_everything_and_shifts_the_clock(node):
    back = decode(encode(node, now=100.0), received_at=5000.0)
    for sent, got in zip((node, *node.gpus), (back, *back.gpus), strict=True):
        assert got.age_s(5000.0) == pytest.approx(sent.age_s(100.0), abs=1e-6)
    there = tuple(replace(gpu, taken_at=0.0) for gpu in back.gpus)
    here = tuple(replace(gpu, taken_at=0.0) for gpu in node.gpus)
    assert replace(back, taken_at=0.0, gpus=there) == replace(node, taken_at=0.0, gpus=here)


def test_what_a_person_sees():
    body = to_dict(snapshot(processes=(GpuProcess(7, 5, owner=Owner("systemd", "vllm.service")),)), now=100.0)  # type: ignore[arg-type]
    assert (body["version"], body["age_s"], body["gpus"][0]["age_s"]) == (1, 4.0, 5.0)
    assert body["gpus"][0]["takes_new_work"] is True
    assert body["gpus"][0]["processes"][0]["owner"]["name"] == "vllm.service"
    assert "taken_at" not in json.dumps(body)


def test_unknown_keys_are_left_aside():
    body = to_dict(snapshot(), now=100.0)
    body["colour"] = "green"
    body["gpus"][0]["fan_rpm"] = 900
    assert decode(json.dumps(body).encode(), 0.0).gpus[0].uuid == fake_gpu(0).uuid


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body.update(version=2), "version is 2"),
        (lambda body: body.pop("version"), "version is None"),
        (lambda body: body.pop("age_s"), "age_s is None"),
        (lambda body: body.update(age_s=-1), "age_s is -1"),
        (lambda body: body.update(age_s=float("nan")), "age_s is nan"),
        (lambda body: body["gpus"][0].update(age_s="5"), r"gpus\[0\].age_s is '5'"),
        (lambda body: body["gpus"][0].pop("uuid"), "gpus.0.uuid"),
        (lambda body: body["gpus"][0].update(state="fine"), "gpus.0.state"),
        (lambda body: body["gpus"][0].update(memory_used_bytes="much"), "gpus.0.memory_used_bytes"),
        (lambda body: body["gpus"][0].update(speed_ratio=float("nan")), r"gpus\[0\].speed_ratio: nan"),
        (lambda body: body["gpus"][0].update(utilisation_ratio=float("inf")), "inf"),
        (lambda body: body.update(gpus=5), "gpus is not a list"),
        (lambda body: body.update(gpus=[5]), r"gpus\[0\] is not an object"),
    ],
)
def test_a_wrong_message_is_refused_and_the_field_named(change, words):
    body = to_dict(snapshot(), now=100.0)
    change(body)
    with pytest.raises(WireError, match=words):
        decode(json.dumps(body).encode(), 0.0)


@pytest.mark.parametrize("message", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b" " * (MAX_BYTES + 1)])
def test_what_is_no_snapshot_at_all(message):
    with pytest.raises(WireError):
        decode(message, 0.0)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_gives_a_snapshot_or_a_wire_error(body):
    for value in (body, {"version": 1, "age_s": 0, "gpus": [body]}, {"version": 1, "age_s": 0, "gpus": body}):
        with contextlib.suppress(WireError):
            assert isinstance(decode(json.dumps(value).encode(), 0.0), NodeSnapshot)


def test_deep_nesting_in_an_unknown_key_is_survived():
    for depth in (500, 900, 5000):
        message = b'{"version":1,"age_s":0,"gpus":[],"x":' + b"[" * depth + b"]" * depth + b"}"
        with contextlib.suppress(WireError):
            assert decode(message, 0.0).gpus == ()
