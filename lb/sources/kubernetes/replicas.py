"""What EndpointSlices and pods say about replicas. Pure.

A pod is listed while it is ready and not on its way out; one that leaves the list drains. That a terminating pod may
still be `serving` is for what it has in flight, not for new requests.
https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from lb.endpoint import Endpoint
from lb.kube import Metadata
from lb.settings import KubernetesSource

SERVICE_LABEL = "kubernetes.io/service-name"
ZONE_LABEL = "topology.kubernetes.io/zone"
"""On pods since Kubernetes 1.35; EndpointSlices have told the zone for longer."""
PREFIX = "tidegate.dev/"
DRAINING = PREFIX + "draining"
MOST_MODELS = 64
"""Models that one replica may claim; adapters are asked of the runtime and are not listed by hand."""
_MODEL = re.compile(r"[\x21-\x7e]{1,256}\Z")
_GPU = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,80}\Z")
HTTP = "http"
"""Name of the port that counts where there are several and the policy names none."""


class _Container(TypedDict, total=False):
    ports: Any


class _PodSpec(TypedDict, total=False):
    nodeName: Any
    containers: list[_Container] | None


class _PodStatus(TypedDict, total=False):
    phase: Any
    podIP: Any
    conditions: Any


class PodFields(TypedDict, total=False):
    """What is read of a pod."""

    metadata: Metadata
    spec: _PodSpec
    status: _PodStatus


class SliceFields(TypedDict, total=False):
    """What is read of an EndpointSlice."""

    metadata: Metadata
    addressType: Any
    endpoints: Any
    ports: Any


Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one ready replica listens."""

    address: str
    port: int
    uid: str | None
    """Of its pod; None: an address that somebody wrote into an EndpointSlice by hand."""
    name: str | None = None
    namespace: str | None = None
    node: str | None = None
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Replicas, and what could not be understood (for the log and the admin status)."""

    endpoints: tuple[Endpoint, ...]
    problems: tuple[str, ...] = ()


class Reader:
    """Turns objects into replicas. What has not changed since the last time is not looked at again: with a thousand
    pods one more would otherwise cost tens of milliseconds, in which no request is served.

    Objects must not be changed in place; a change is another object.
    """

    def __init__(self, settings: KubernetesSource, runtimes: Collection[str]) -> None:
        """`runtimes`: names that exist."""
        self._settings = settings
        self._runtimes = runtimes
        self._places: dict[int, tuple[Object, _Found]] = {}
        """By the identity of the slice or pod, which is kept beside it so that the identity stays its own."""
        self._made: dict[tuple[int, int], _Made] = {}
        """By the identities of the place and its pod."""

    def read(self, slices: Iterable[Object] | None, pods: Iterable[Object] | None) -> Reading:
        """Replicas in a stable order. With both, slices say who is ready and pods what they are: whose pod has not been
        seen yet is left out, as its annotations may name its models."""
        problems: list[str] = []
        by_uid = {_text(pod, "metadata", "uid"): pod for pod in pods} if pods is not None else {}
        if slices is not None:
            places = self._find(slices, _places_of_slice, problems)
        else:
            places = self._find(by_uid.values(), _places_of_pod, problems)
        before, self._made = self._made, {}
        endpoints: dict[str, Endpoint] = {}
        for place in sorted(places, key=lambda place: (":" in place.address, place.address, place.port)):
            pod = by_uid.get(place.uid or "")
            if pods is not None and place.uid is not None and pod is None:
                continue
            key = (id(place), id(pod))
            made = self._made[key] = before.get(key) or self._make(place, pod)
            if made.endpoint is not None:
                problems += made.problems
                endpoints.setdefault(made.endpoint.id, made.endpoint)  # dual stack: the IPv4 address came first
        found, most = tuple(endpoints.values()), self._settings.max_replicas
        if len(found) > most:
            problems.append(f"{len(found)} replicas are more than max_replicas, {most}")
        return Reading(found[:most], tuple(dict.fromkeys(problems)))

    def _make(self, place: Place, pod: Object | None) -> _Made:
        if pod is not None and _is_taken_out(pod):
            return _Made(place, pod)
        told = _Annotations(pod or {}, place.name or place.address, self._runtimes)
        endpoint = _endpoint(place, told, self._settings)
        return _Made(place, pod, endpoint, tuple(told.problems))

    def _find(
        self, objects: Iterable[Object], look: Callable[[Object, int | str | None], _Found], problems: list[str]
    ) -> list[Place]:
        before, self._places = self._places, {}
        places: list[Place] = []
        for one in objects:
            known = before.get(id(one))
            if known is None or known[0] is not one:
                known = (one, look(one, self._settings.port))
            self._places[id(one)] = known
            places += known[1].places
            problems += known[1].problems
        return places


@dataclass(frozen=True, slots=True)
class _Made:
    """What a place and its pod add up to. Both are kept, so that their identities stay their own."""

    place: Place
    pod: Object | None
    endpoint: Endpoint | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """What one object says."""

    places: tuple[Place, ...] = ()
    problems: tuple[str, ...] = ()


def _places_of_slice(one: Object, wanted: int | str | None) -> _Found:
    endpoints = _items(one, "endpoints")
    if one.get("addressType") not in ("IPv4", "IPv6") or not endpoints:
        return _Found()
    named = [(str(port.get("name") or ""), port.get("port")) for port in _items(one, "ports")]
    port = _choose(named, wanted)
    if port is None:
        return _Found(problems=(_no_port(f"EndpointSlice {_text(one, 'metadata', 'name')}", wanted),))
    return _Found(tuple(_places_in(endpoints, port, _text(one, "metadata", "namespace") or None)))


def _places_in(endpoints: Iterable[Object], port: int, namespace: str | None) -> Iterator[Place]:
    for endpoint in endpoints:
        conditions = _part(endpoint, "conditions")
        # A condition that is not told counts as true for `ready` and as false for `terminating`: the API says so.
        if conditions.get("ready") is False or conditions.get("terminating") is True:
            continue
        addresses = endpoint.get("addresses")
        if not isinstance(addresses, list) or not addresses or not isinstance(addresses[0], str):
            continue
        target = _part(endpoint, "targetRef")
        is_pod = target.get("kind") == "Pod"
        yield Place(
            address=addresses[0],  # all of them are equal, the API says, and only the first is used
            port=port,
            uid=_text(target, "uid") or None if is_pod else None,
            name=_text(target, "name") or None if is_pod else None,
            namespace=namespace,
            node=_text(endpoint, "nodeName") or None,
            zone=_text(endpoint, "zone") or None,
        )


def _places_of_pod(pod: Object, wanted: int | str | None) -> _Found:
    address = _text(pod, "status", "podIP")
    if not address or _is_taken_out(pod) or not _is_ready(pod):
        return _Found()
    ports = [
        (str(port.get("name") or ""), port.get("containerPort"))
        for container in _items(pod, "spec", "containers")
        for port in _items(container, "ports")
        if port.get("protocol", "TCP") == "TCP"
    ]
    port = _choose(ports, wanted)
    if port is None:
        return _Found(problems=(_no_port(f"pod {_text(pod, 'metadata', 'name')}", wanted),))
    place = Place(
        address=address,
        port=port,
        uid=_text(pod, "metadata", "uid") or None,
        name=_text(pod, "metadata", "name") or None,
        namespace=_text(pod, "metadata", "namespace") or None,
        node=_text(pod, "spec", "nodeName") or None,
        zone=_text(_part(pod, "metadata", "labels"), ZONE_LABEL) or None,
    )
    return _Found((place,))


def _choose(ports: list[tuple[str, Any]], wanted: int | str | None) -> int | None:
    """A number as it is; a name by name; else the only port, or that called `http`."""
    if isinstance(wanted, int):
        return wanted
    numbers = [(name, port) for name, port in ports if isinstance(port, int) and 0 < port < 65_536]
    if wanted is None and len({port for _, port in numbers}) == 1:
        return numbers[0][1]
    return next((port for name, port in numbers if name == (wanted or HTTP)), None)


def _no_port(what: str, wanted: int | str | None) -> str:
    if wanted is None:
        return f"{what} has not exactly one port, and none called {HTTP}: say `port`"
    return f"{what} has no port called {wanted}"


def _endpoint(place: Place, told: _Annotations, settings: KubernetesSource) -> Endpoint:
    host = f"[{place.address}]" if ":" in place.address else place.address
    labels = {"namespace": place.namespace, "pod": place.name, "node": place.node}
    metrics_port = told.number("metrics-port", 1, 65_535)
    return Endpoint(
        id=place.uid or f"{'https' if settings.tls else 'http'}://{host}:{place.port}",
        host=place.address,
        port=place.port,
        tls=settings.tls,
        tls_name=settings.tls_name,
        models=told.models() or settings.models,
        runtime=told.runtime() or settings.runtime,
        zone=place.zone,
        weight=told.number("weight", 0.001, 1000.0) or 1.0,
        max_in_flight=_whole(told.number("max-in-flight", 1, 1_000_000)),
        metrics_url=None if metrics_port is None else f"http://{host}:{int(metrics_port)}/metrics",
        gpu_uuids=told.gpus(),
        labels={key: value for key, value in labels.items() if value},
    )


class _Annotations:
    """What a pod says about itself. What is nonsense is left aside and told, never fatal: others write it."""

    def __init__(self, pod: Object, name: str, runtimes: Collection[str]) -> None:
        self._told = _annotations(pod)
        self._name = name
        self._runtimes = runtimes
        self.problems: list[str] = []

    def models(self) -> tuple[str, ...]:
        return self._names("models", _MODEL, MOST_MODELS)

    def gpus(self) -> tuple[str, ...]:
        return self._names("gpu-uuids", _GPU, MOST_MODELS)

    def runtime(self) -> str | None:
        name = self._told.get(PREFIX + "runtime")
        if name is None or name == "auto" or name in self._runtimes:
            return name
        self._refuse("runtime", f"must be auto or one of {', '.join(sorted(self._runtimes))}")
        return None

    def number(self, key: str, least: float, most: float) -> float | None:
        text = self._told.get(PREFIX + key)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if least <= value <= most:  # which NaN fails, too
            return value
        self._refuse(key, f"must be a number from {least:g} to {most:g}")
        return None

    def _names(self, key: str, form: re.Pattern[str], most: int) -> tuple[str, ...]:
        text = self._told.get(PREFIX + key, "")
        names = tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
        if len(names) > most or not all(map(form.match, names)):
            self._refuse(key, f"must be at most {most} names with commas between them")
            return ()
        return names

    def _refuse(self, key: str, what: str) -> None:
        self.problems.append(f"{self._name}: annotation {PREFIX}{key} {what}")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _is_ready(pod: Object) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in _items(pod, "status", "conditions")
    )


def _is_taken_out(pod: Object) -> bool:
    """Told to end, ended, or drained."""
    if _text(pod, "metadata", "deletionTimestamp") or _text(pod, "status", "phase") in ("Succeeded", "Failed"):
        return True
    return bool(_text(_part(pod, "metadata", "annotations"), DRAINING))


def _annotations(pod: Object) -> Mapping[str, str]:
    found = _part(pod, "metadata", "annotations")
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _part(value: Object, *path: str) -> Mapping[str, Any]:
    for key in path:
        found = value.get(key)
        if not isinstance(found, Mapping):
            return {}
        value = found
    return value


def _items(value: Object, *path: str) -> list[Mapping[str, Any]]:
    found = _part(value, *path[:-1]).get(path[-1])
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _text(value: Object, *path: str) -> str:
    found = _part(value, *path[:-1]).get(path[-1])
    return found if isinstance(found, str) else ""
