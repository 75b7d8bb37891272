"""What EndpointSlices and pods say about replicas, object by object."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lb.endpoint import Endpoint
from lb.runtimes import RUNTIMES
from lb.settings import KubernetesSource
from lb.sources.kubernetes.replicas import MOST_MODELS, Reader, Reading

SERVICE = KubernetesSource(service="llm")
PODS = KubernetesSource(pods="app=llm")
BOTH = KubernetesSource(service="llm", pods="app=llm")


def read(settings: KubernetesSource, slices: Any, pods: Any) -> Reading:
    return Reader(settings, RUNTIMES).read(slices, pods)


def address(ip: str, uid: str | None = "u1", **more: Any) -> dict[str, Any]:
    conditions = more.pop("conditions", {"ready": True, "serving": True, "terminating": False})
    target = {"targetRef": {"kind": "Pod", "name": f"pod-{uid}", "uid": uid}} if uid else {}
    return {"addresses": [ip], "conditions": conditions, "nodeName": "gpu-0", "zone": "zone-a", **target, **more}


def endpoint_slice(*addresses: dict[str, Any], ports: Any = None, family: str = "IPv4") -> dict[str, Any]:
    ports = [{"name": "http", "port": 8000, "protocol": "TCP"}] if ports is None else ports
    metadata = {"name": "llm-abc", "namespace": "ns"}
    return {"metadata": metadata, "addressType": family, "endpoints": list(addresses), "ports": ports}


def pod(uid: str = "u1", ip: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
    annotations = {f"tidegate.dev/{key.replace('_', '-')}": value for key, value in more.pop("told", {}).items()}
    return {
        "metadata": {
            "name": f"pod-{uid}", "namespace": "ns", "uid": uid, "annotations": annotations,
            "labels": {"topology.kubernetes.io/zone": "zone-a"}, **more.pop("metadata", {}),
        },
        "spec": {
            "nodeName": "gpu-0",
            "containers": [{"ports": more.pop("ports", [{"name": "http", "containerPort": 8000}])}],
        },
        "status": {
            "phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}],
            **more.pop("status", {}),
        },
    }  # fmt: skip


def urls(found: tuple[Endpoint, ...]) -> list[str]:
    return [endpoint.url for endpoint in found]


EXPECTED = Endpoint(
    id="u1",
    host="10.0.0.1",
    port=8000,
    zone="zone-a",
    labels={"namespace": "ns", "pod": "pod-u1", "node": "gpu-0"},
)


@pytest.mark.parametrize(
    ("settings", "slices", "pods"),
    [
        (SERVICE, [endpoint_slice(address("10.0.0.1"))], None),
        (PODS, None, [pod()]),
        (BOTH, [endpoint_slice(address("10.0.0.1"))], [pod()]),
    ],
)
def test_the_same_replica_from_a_service_from_pods_and_from_both(settings: Any, slices: Any, pods: Any) -> None:
    assert read(settings, slices, pods).endpoints == (EXPECTED,)
    assert read(settings, slices, pods).problems == ()


@pytest.mark.parametrize(
    ("conditions", "listed"),
    [
        ({"ready": True}, True),
        ({}, True),
        ({"ready": None, "terminating": None}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),
    ],
)
def test_ready_and_not_on_its_way_out(conditions: dict[str, Any], listed: bool) -> None:
    slices = [endpoint_slice(address("10.0.0.1", conditions=conditions))]
    assert bool(read(SERVICE, slices, None).endpoints) is listed


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"status": {"phase": "Succeeded"}},
        {"status": {"phase": "Failed"}},
        {"status": {"podIP": ""}},
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"conditions": None}},
        {"told": {"draining": "scale-down"}},
    ],
)
def test_a_pod_that_is_not_ready_leaves_or_drains_is_not_listed(more: dict[str, Any]) -> None:
    assert read(PODS, None, [pod(**more)]).endpoints == ()


def test_with_both_a_pod_that_leaves_or_drains_is_left_out_even_if_its_slice_says_ready() -> None:
    slices = [endpoint_slice(address("10.0.0.1"))]
    for more in ({"metadata": {"deletionTimestamp": "x"}}, {"told": {"draining": "true"}}):
        assert read(BOTH, slices, [pod(**more)]).endpoints == ()


def test_with_both_a_pod_that_has_not_been_seen_is_waited_for() -> None:
    slices = [endpoint_slice(address("10.0.0.1", "u1"), address("10.0.0.2", "u2"))]
    assert urls(read(BOTH, slices, [pod("u1")]).endpoints) == ["http://10.0.0.1:8000"]


def test_annotations_say_what_it_is() -> None:
    told = {
        "models": "llama-3-70b, llama-3-70b-fp8,llama-3-70b",
        "runtime": "vllm",
        "weight": "2.5",
        "max_in_flight": "64",
        "metrics_port": "9000",
        "gpu_uuids": "GPU-8f1b3c2a-0000-1111-2222-333344445555",
    }
    (found,) = read(BOTH, [endpoint_slice(address("10.0.0.1"))], [pod(told=told)]).endpoints
    assert found.models == ("llama-3-70b", "llama-3-70b-fp8")
    assert (found.runtime, found.weight, found.max_in_flight) == ("vllm", 2.5, 64)
    assert found.metrics_url == "http://10.0.0.1:9000/metrics"
    assert found.gpu_uuids == ("GPU-8f1b3c2a-0000-1111-2222-333344445555",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models", "bad model"),
        ("models", "x" * 300),
        ("models", ",".join(f"m{number}" for number in range(MOST_MODELS + 1))),
        ("runtime", "vlm"),
        ("weight", "-1"),
        ("weight", "nan"),
        ("weight", "heavy"),
        ("max_in_flight", "0"),
        ("metrics_port", "99999"),
        ("gpu_uuids", "0"),
    ],
)
def test_an_annotation_that_makes_no_sense_is_told_and_left_aside(key: str, value: str) -> None:
    settings = KubernetesSource(pods="app=llm", models=("declared",), runtime="sglang")
    reading = read(settings, None, [pod(told={key: value})])
    (found,) = reading.endpoints
    assert (found.models, found.runtime, found.weight, found.max_in_flight) == (("declared",), "sglang", 1.0, None)
    assert (found.metrics_url, found.gpu_uuids) == (None, ())
    (problem,) = reading.problems
    assert problem.startswith(f"pod-u1: annotation tidegate.dev/{key.replace('_', '-')} must be")


def test_a_pod_that_takes_over_an_address_is_another_replica() -> None:
    before = read(SERVICE, [endpoint_slice(address("10.0.0.1", "old"))], None).endpoints
    after = read(SERVICE, [endpoint_slice(address("10.0.0.1", "new"))], None).endpoints
    assert urls(before) == urls(after)
    assert before[0].id != after[0].id


def test_an_address_without_a_pod_is_known_by_its_url() -> None:
    for settings, pods in ((SERVICE, None), (BOTH, [])):
        (found,) = read(settings, [endpoint_slice(address("192.168.7.1", None))], pods).endpoints
        assert found.id == "http://192.168.7.1:8000"


def test_dual_stack_is_one_replica() -> None:
    slices = [
        endpoint_slice(address("fd00::1"), family="IPv6"),
        endpoint_slice(address("10.0.0.1")),
        endpoint_slice(address("llm.example"), family="FQDN"),
    ]
    assert urls(read(SERVICE, slices, None).endpoints) == ["http://10.0.0.1:8000"]
    assert urls(read(SERVICE, slices[:1], None).endpoints) == ["http://[fd00::1]:8000"]


def test_one_address_in_two_slices_counts_once() -> None:
    slices = [endpoint_slice(address("10.0.0.1")), endpoint_slice(address("10.0.0.1"))]
    assert len(read(SERVICE, slices, None).endpoints) == 1


TWO = [{"name": "grpc", "port": 8001, "containerPort": 8001}, {"name": "http", "port": 8000, "containerPort": 8000}]
OTHERS = [{"name": "grpc", "port": 8001, "containerPort": 8001}, {"name": "web", "port": 80, "containerPort": 80}]


@pytest.mark.parametrize(
    ("ports", "wanted", "found"),
    [
        (TWO, None, 8000),
        (TWO, "grpc", 8001),
        (TWO, 9999, 9999),
        (TWO[:1], None, 8001),
        (OTHERS, None, None),
        (OTHERS, "http", None),
        ([], None, None),
        ([], 8000, 8000),
        ([{"name": "http", "port": None, "containerPort": None}], None, None),
    ],
)
def test_which_port(ports: list[dict[str, Any]], wanted: int | str | None, found: int | None) -> None:
    for settings, slices, pods in (
        (KubernetesSource(service="llm", port=wanted), [endpoint_slice(address("10.0.0.1"), ports=ports)], None),
        (KubernetesSource(pods="app=llm", port=wanted), None, [pod(ports=ports)]),
    ):
        reading = read(settings, slices, pods)
        assert [endpoint.port for endpoint in reading.endpoints] == ([] if found is None else [found])
        assert bool(reading.problems) is (found is None)


def test_more_than_max_replicas_are_cut_and_told() -> None:
    settings = KubernetesSource(service="llm", max_replicas=2)
    reading = read(settings, [endpoint_slice(*(address(f"10.0.0.{n}", f"u{n}") for n in (3, 1, 2)))], None)
    assert urls(reading.endpoints) == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    assert reading.problems == ("3 replicas are more than max_replicas, 2",)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"service": "Llm"},
        {"service": "llm", "context": "prod"},
        {"service": "llm", "tls_name": "x"},
        {"service": "llm", "port": 0},
        {"service": "llm", "namespace": "../x"},
        {"service": "llm", "watch_idle": "5m"},
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KubernetesSource(**fields)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("metadata", "addressType", "endpoints", "ports", "spec", "status")


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON), max_size=3))
def test_nothing_that_the_api_could_say_breaks_it(objects: list[dict[str, Any]]) -> None:
    for settings in (SERVICE, PODS, BOTH):
        read(settings, objects, objects)


@given(st.data())
def test_a_field_of_the_wrong_type_breaks_nothing(data: st.DataObject) -> None:
    slices, pods = [endpoint_slice(address("10.0.0.1"))], [pod(told={"models": "m"})]
    node: Any = data.draw(st.sampled_from([slices[0], pods[0]]))
    while True:
        key = data.draw(st.sampled_from(sorted(node))) if isinstance(node, dict) else 0
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(JSON)
    for settings in (SERVICE, PODS, BOTH):
        read(settings, slices, pods)


STATES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([{}, {"told": {"models": "m"}}, {"told": {"weight": "x"}}, {"told": {"draining": "1"}}]),
        st.sampled_from([{"ready": True}, {"ready": False}, None]),
    ),
    max_size=12,
)


@given(STATES)
def test_what_is_remembered_from_before_changes_no_result(
    steps: list[tuple[int, dict[str, Any], dict[str, Any] | None]],
) -> None:
    """Against one that reads everything anew each time."""
    readers = {settings: Reader(settings, RUNTIMES) for settings in (SERVICE, PODS, BOTH)}
    pods: dict[int, dict[str, Any]] = {}
    slices: dict[int, dict[str, Any]] = {}
    for number, more, conditions in steps:
        pods[number] = pod(f"u{number}", f"10.0.0.{number}", **more)
        if conditions is None:
            pods.pop(number)
        else:
            slices[number % 2] = endpoint_slice(address(f"10.0.0.{number}", f"u{number}", conditions=conditions))
        for settings, reader in readers.items():
            seen = (list(slices.values()) if settings.service else None, list(pods.values()) if settings.pods else None)
            assert reader.read(*seen) == read(settings, *seen)
