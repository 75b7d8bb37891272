"""What must hold in a policy beyond each field's own type: addresses, references, names, things that contradict."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from autoscaler.policy.actuators import WebhookSettings
from autoscaler.policy.pool_semantics import pool_findings
from autoscaler.policy.pools import ScalingSettings
from autoscaler.policy.schema import Policy
from lb.address import is_loopback, parse_address
from lb.decode import Finding, Loc, nearest
from lb.endpoint import parse_url
from lb.errors import SettingsError
from lb.secrets import check_reference
from lb.settings import BackendSettings, DnsSource, KeySettings, KubernetesSource, LbSettings, PeerSettings

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")
"""RFC 9110 5.6.2: what a field name may be made of."""
_ALLOWED_PATH = re.compile(r"/[^\s?#*]*(/\*)?\Z")
_SELECTOR = re.compile(r"[A-Za-z0-9!][A-Za-z0-9 ._/=!,()-]*\Z")
"""The characters that label selectors are made of; whether it can be parsed the API server says at once."""
T = TypeVar("T")


def findings(policy: Policy, *, runtimes: Iterable[str], scorers: Iterable[str]) -> Iterator[Finding]:
    """Everything wrong with a well-typed policy. `runtimes` and `scorers` are the names that exist."""
    lb, at = policy.lb, ("lb",)
    yield from _addresses(lb, at)
    yield from _backends(lb.backends, (*at, "backends"), runtimes)
    yield from _dns(lb.dns, (*at, "dns"), runtimes)
    yield from _kubernetes(lb.kubernetes, (*at, "kubernetes"), runtimes)
    yield from _repeated(lb.files, lambda source: source.path, (*at, "files"), "path", "the file")
    yield from _peers(lb.peers, (*at, "peers"))
    yield from _keys(lb, (*at, "keys"))
    yield from _secrets(lb, at)
    yield from _paths(lb, (*at, "paths"))
    yield from _routing(lb, (*at, "routing"), scorers)
    yield from _limits(lb, at)
    yield from pool_findings(policy.scaling, ("scaling",))
    yield from _actuators(policy.scaling)
    yield from _repeated(policy.calendars, lambda calendar: calendar.file, ("calendars",), "file", "the file")


def _attempt(check: Callable[[], object], loc: Loc) -> Iterator[Finding]:
    try:
        check()
    except SettingsError as error:
        yield Finding(loc, str(error))


def _repeated(items: Iterable[T], key: Callable[[T], object], loc: Loc, field: str, what: str) -> Iterator[Finding]:
    """Items whose key an earlier one has."""
    seen: dict[object, int] = {}
    for index, item in enumerate(items):
        value = key(item)
        if value is None:
            continue
        if value in seen:
            yield Finding((*loc, index, field), f"{what} is listed twice", first=(*loc, seen[value], field))
        else:
            seen[value] = index


def _addresses(lb: LbSettings, at: Loc) -> Iterator[Finding]:
    yield from _attempt(lambda: parse_address(lb.listen), (*at, "listen"))
    admin = (*at, "admin", "listen")
    try:
        host, port = parse_address(lb.admin.listen)
    except SettingsError as error:
        yield Finding(admin, str(error))
        return
    if not is_loopback(host) and lb.admin.token is None:
        yield Finding(
            admin,
            f"{host} is reachable from other machines, so the admin API needs `token`; write token: env:NAME beside "
            f"it, or listen on 127.0.0.1:{port}",
        )
    if port and lb.admin.listen == lb.listen:
        yield Finding(admin, "is the address of the data plane; the admin API needs one of its own")


def _url_identity(url: str) -> object:
    try:
        return parse_url(url)
    except SettingsError:
        return None


def _backends(backends: tuple[BackendSettings, ...], at: Loc, runtimes: Iterable[str]) -> Iterator[Finding]:
    for index, backend in enumerate(backends):
        loc = (*at, index)
        yield from _attempt(lambda url=backend.url: parse_url(url), (*loc, "url"))  # type: ignore[misc]
        if backend.metrics_url is not None:
            yield from _attempt(lambda url=backend.metrics_url: parse_url(url), (*loc, "metrics_url"))  # type: ignore[misc]
        yield from _runtime(backend.runtime, (*loc, "runtime"), runtimes)
    yield from _repeated(backends, lambda backend: _url_identity(backend.url), at, "url", "this replica")


def _runtime(name: str, loc: Loc, runtimes: Iterable[str]) -> Iterator[Finding]:
    known = ["auto", *runtimes]
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
        yield Finding(loc, f"is no runtime; {hint}")


def _dns(sources: tuple[DnsSource, ...], at: Loc, runtimes: Iterable[str]) -> Iterator[Finding]:
    for index, source in enumerate(sources):
        loc = (*at, index)
        yield from _runtime(source.runtime, (*loc, "runtime"), runtimes)
        if not source.name or len(source.name) > 253 or re.search(r"[\s/:@]", source.name):
            yield Finding((*loc, "name"), "is not a DNS name; write one such as vllm.internal, without scheme or port")
        if source.type == "SRV" and source.port is not None:
            yield Finding((*loc, "port"), "SRV records bring their own port; leave `port` out")
        for position, server in enumerate(source.nameservers):
            if not _is_nameserver(server):
                yield Finding((*loc, "nameservers", position), "must be an IP or IP:port, such as 10.0.0.53")
    yield from _repeated(sources, lambda source: (source.name, source.type, source.port), at, "name", "this name")


def _kubernetes(sources: tuple[KubernetesSource, ...], at: Loc, runtimes: Iterable[str]) -> Iterator[Finding]:
    for index, source in enumerate(sources):
        loc = (*at, index)
        yield from _runtime(source.runtime, (*loc, "runtime"), runtimes)
        if source.pods is not None and not _SELECTOR.match(source.pods):
            yield Finding((*loc, "pods"), "is not a label selector; write one such as app=llm,tier!=test")
    yield from _repeated(
        sources,
        lambda source: (source.kubeconfig, source.context, source.namespace, source.service, source.pods, source.port),
        at,
        "service",
        "this selection",
    )


def _is_nameserver(text: str) -> bool:
    host = text
    if not _is_ip(text):
        try:
            host, port = parse_address(text)
        except SettingsError:
            return False
        if port == 0 or text.startswith(":"):
            return False
    return _is_ip(host)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _peers(peers: tuple[PeerSettings, ...], at: Loc) -> Iterator[Finding]:
    for index, peer in enumerate(peers):
        yield from _attempt(lambda url=peer.url: parse_url(url), (*at, index, "url"))  # type: ignore[misc]
        if peer.token is not None:
            yield from _attempt(lambda token=peer.token: check_reference(token), (*at, index, "token"))  # type: ignore[misc]
        if peer.stale_s < peer.interval_s:
            yield Finding((*at, index, "stale"), f"is shorter than `interval` ({peer.interval_s:g}s)")
        for position, host in enumerate(peer.hosts):
            if not host or re.search(r"[\s/@]", host):
                yield Finding(
                    (*at, index, "hosts", position), "must be a name or an IP address, with nothing around it"
                )
    yield from _repeated(peers, lambda peer: _url_identity(peer.url), at, "url", "this peer")


def _keys(lb: LbSettings, at: Loc) -> Iterator[Finding]:
    keys: tuple[KeySettings, ...] = lb.keys
    yield from _repeated(keys, lambda key: key.name, at, "name", "the name")
    yield from _repeated(keys, lambda key: key.sha256, at, "sha256", "the same key")
    served = {model for backend in lb.backends for model in backend.models}
    if lb.files or lb.dns or lb.kubernetes or not lb.backends or not all(backend.models for backend in lb.backends):
        return  # the models are found out at run time
    for index, key in enumerate(keys):
        for position, model in enumerate(key.models):
            if model not in served:
                near = nearest(model, served)
                hint = f"did you mean {near!r}?" if near else f"they serve {', '.join(sorted(served))}"
                yield Finding((*at, index, "models", position), f"is a model that no backend serves; {hint}")


def _actuators(scaling: ScalingSettings) -> Iterator[Finding]:
    for index, pool in enumerate(scaling.pools):
        settings = pool.actuator
        if isinstance(settings, WebhookSettings) and settings.token is not None:
            check = partial(check_reference, settings.token)
            yield from _attempt(check, ("scaling", "pools", index, "actuator", "token"))


def _secrets(lb: LbSettings, at: Loc) -> Iterator[Finding]:
    forwarding = lb.forwarding
    loc = (*at, "forwarding")
    if lb.admin.token is not None:
        yield from _attempt(lambda: check_reference(lb.admin.token or ""), (*at, "admin", "token"))
    if forwarding.upstream_key is not None:
        yield from _attempt(lambda: check_reference(forwarding.upstream_key or ""), (*loc, "upstream_key"))
    if forwarding.upstream_authorization == "replace" and forwarding.upstream_key is None:
        yield Finding((*loc, "upstream_authorization"), "needs `upstream_key` beside it: env:NAME or file:NAME")
    if forwarding.upstream_authorization != "replace" and forwarding.upstream_key is not None:
        yield Finding((*loc, "upstream_key"), "has an effect only with `upstream_authorization: replace`")


def _paths(lb: LbSettings, at: Loc) -> Iterator[Finding]:
    for name, paths in (("allow", lb.paths.allow), ("websocket", lb.paths.websocket)):
        for index, path in enumerate(paths):
            if not _ALLOWED_PATH.match(path) or "/../" in path + "/" or "//" in path:
                yield Finding((*at, name, index), "must be a path such as /v1/predict, or /v1/x/* for all below it")
    yield from _repeated(lb.paths.custom, lambda custom: custom.path, (*at, "custom"), "path", "the path")


def _routing(lb: LbSettings, at: Loc, scorers: Iterable[str]) -> Iterator[Finding]:
    known = list(scorers)
    for name in lb.routing.weights:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(known))}"
            yield Finding((*at, "weights", name), f"there is no such scorer; {hint}")
    for section, field, header in (
        ("routing", "session_header", lb.routing.session_header),
        ("admission", "deadline_header", lb.admission.deadline_header),
        ("admission", "priority_header", lb.admission.priority_header),
    ):
        if header is not None and not _HEADER.match(header):
            yield Finding((at[0], section, field), "is not a header name")


def _limits(lb: LbSettings, at: Loc) -> Iterator[Finding]:
    limits, health = lb.limits, lb.health
    for field, value in (("request_line", limits.request_line_bytes), ("header", limits.header_bytes)):
        if value > limits.head_bytes:
            yield Finding(
                (*at, "limits", field), f"is more than the {limits.head_bytes} bytes of `head`, which it is part of"
            )
    if health.ejection_s > health.ejection_max_s:
        yield Finding((*at, "health", "ejection"), f"is longer than `ejection_max` ({health.ejection_max_s:g}s)")
