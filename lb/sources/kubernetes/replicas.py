"""What EndpointSlices and pods say about replicas. Pure.

A pod is listed while it is ready and not on its way out; one that leaves the list drains. That a terminating pod may
still be `serving` is for what it has in flight, not for new requests.
https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lb.endpoint import Endpoint
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


def read(
    settings: KubernetesSource,
    slices: Iterable[Object] | None,
    pods: Iterable[Object] | None,
    runtimes: Collection[str],
) -> Reading:
    """Replicas in a stable order. With both, slices say who is ready and pods what they are: whose pod has not been
    seen yet is left out, as its annotations may name its models. `runtimes` are the names that exist."""
    problems: list[str] = []
    by_uid = {_text(pod, "metadata", "uid"): pod for pod in pods} if pods is not None else {}
    if slices is not None:
        places = _places_of_slices(slices, settings.port, problems)
    else:
        places = _places_of_pods(by_uid.values(), settings.port, problems)
    endpoints: dict[str, Endpoint] = {}
    for place in sorted(places, key=lambda place: (":" in place.address, place.address, place.port)):
        pod = by_uid.get(place.uid or "")
        if pods is not None and place.uid is not None and pod is None:
            continue
        if pod is not None and (_leaves(pod) or _annotations(pod).get(DRAINING)):
            continue
        told = _Annotations(pod or {}, place.name or place.address, runtimes, problems)
        endpoint = _endpoint(place, told, settings)
        endpoints.setdefault(endpoint.id, endpoint)  # dual stack: the IPv4 address came first
    found = tuple(endpoints.values())
    if len(found) > settings.max_replicas:
        problems.append(f"{len(found)} replicas are more than max_replicas, {settings.max_replicas}")
    return Reading(found[: settings.max_replicas], tuple(dict.fromkeys(problems)))


def _places_of_slices(slices: Iterable[Object], wanted: int | str | None, problems: list[str]) -> Iterator[Place]:
    for one in slices:
        if one.get("addressType") not in ("IPv4", "IPv6"):
            continue
        endpoints = _items(one, "endpoints")
        if not endpoints:
            continue
        named = [(str(port.get("name") or ""), port.get("port")) for port in _items(one, "ports")]
        port = _choose(named, wanted)
        if port is None:
            problems.append(_no_port(f"EndpointSlice {_text(one, 'metadata', 'name')}", wanted))
            continue
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
                namespace=_text(one, "metadata", "namespace") or None,
                node=_text(endpoint, "nodeName") or None,
                zone=_text(endpoint, "zone") or None,
            )


def _places_of_pods(pods: Iterable[Object], wanted: int | str | None, problems: list[str]) -> Iterator[Place]:
    for pod in pods:
        address = _text(pod, "status", "podIP")
        if not address or _leaves(pod) or not _is_ready(pod):
            continue
        ports = [
            (str(port.get("name") or ""), port.get("containerPort"))
            for container in _items(pod, "spec", "containers")
            for port in _items(container, "ports")
            if port.get("protocol", "TCP") == "TCP"
        ]
        port = _choose(ports, wanted)
        if port is None:
            problems.append(_no_port(f"pod {_text(pod, 'metadata', 'name')}", wanted))
            continue
        yield Place(
            address=address,
            port=port,
            uid=_text(pod, "metadata", "uid") or None,
            name=_text(pod, "metadata", "name") or None,
            namespace=_text(pod, "metadata", "namespace") or None,
            node=_text(pod, "spec", "nodeName") or None,
            zone=_part(pod, "metadata", "labels").get(ZONE_LABEL),
        )


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

    def __init__(self, pod: Object, name: str, runtimes: Collection[str], problems: list[str]) -> None:
        self._told = _annotations(pod)
        self._name = name
        self._runtimes = runtimes
        self._problems = problems

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
        self._problems.append(f"{self._name}: annotation {PREFIX}{key} {what}")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _is_ready(pod: Object) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in _items(pod, "status", "conditions")
    )


def _leaves(pod: Object) -> bool:
    """Told to end, or ended."""
    phase = _text(pod, "status", "phase")
    return bool(_text(pod, "metadata", "deletionTimestamp")) or phase in ("Succeeded", "Failed")


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
