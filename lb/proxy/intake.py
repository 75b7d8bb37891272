"""From a request's head to its route: path, key, and the headers that steer."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lb.auth import Network, client_address, forwarded_for_value
from lb.errors import ProxyError, Reason
from lb.paths import surface_of
from lb.request import RequestInfo, SurfaceName
from lb.settings import KeySettings
from lb.surface import Route, Surface
from lb.surfaces.fields import named_models
from lb.surfaces.prompt import stable_hash

if TYPE_CHECKING:
    from lb.proxy.client import ClientConnection
    from lb.proxy.context import ProxyContext
    from lb.proxy.head import Head

_PATIENCE_MAX_S = 86_400.0
_EARLY_BYTES = 65_536
"""Where the model of a body that is too large to be read whole is looked for."""
_MODEL_EARLY = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"|name="model"\r\n\r\n([^\r\n]{1,256})\r\n')
_LOCAL = frozenset({"*", "/health", "/v1/models"})


class Plan:
    """What one head means, as far as it does not depend on who sends it. Shared by all requests with that head."""

    __slots__ = ("head", "lines", "local", "route", "steered", "surface")

    def __init__(self, context: ProxyContext, head: Head) -> None:
        self.head = head
        self.local = head.path in _LOCAL and head.method in ("GET", "HEAD", "OPTIONS")
        """Whether Tidegate itself may answer."""
        self.route = _OWN if self.local else _route(context, head)
        self.surface: Surface = surface_of(self.route)
        self.steered = not context.watched_names.isdisjoint(head.kept)
        lines = head.lines
        if context.authorization_line:
            lines = [*lines, context.authorization_line]
        elif context.forward_authorization:
            lines = [*lines, *(b"%b: %b\r\n" % pair for pair in head.auth)]
        self.lines = b"".join(lines)
        """Header lines for the replica, as far as they are the same for all clients."""


_OWN = Route(SurfaceName.OTHER, frozenset({"GET", "HEAD", "OPTIONS"}), generates=False)


def _route(context: ProxyContext, head: Head) -> Route:
    method = "GET" if head.method == "HEAD" else head.method
    route = context.paths.match(method, head.path)
    if route is not None:
        return route
    allowed = context.paths.methods(head.path)
    if allowed and head.method == "OPTIONS":
        return Route(SurfaceName.OTHER, frozenset({"OPTIONS"}), generates=False)  # a browser's question before a POST
    if allowed:
        raise ProxyError(
            Reason.METHOD_NOT_ALLOWED, 405, f"{head.method} is not allowed here; use {', '.join(sorted(allowed))}"
        )
    raise ProxyError(Reason.NOT_FOUND, 404, "this path is not served here (the policy's `paths.allow` adds paths)")


def admit(
    context: ProxyContext, client: ClientConnection, plan: Plan, length: int
) -> tuple[RequestInfo, KeySettings | None]:
    """Judge one request by its head; raises ProxyError. `length` is its Content-Length, negative if it has none."""
    head, route = plan.head, plan.route
    try:
        if head.forwarded:
            trusted = context.settings.forwarding.trusted_proxies
            said = dict(head.forwarded).get(b"x-forwarded-for", b"") if trusted else b""
            client.address = client_address(client.peer, said.decode("latin-1"), trusted)
        info = RequestInfo(context.next_id(), route.surface, route.model_in_path)
        info.stream = route.streams_by_path
        key = None
        if context.authenticator.required:
            key = _authenticate(context, client, head)
            if key is not None:
                info.tenant = key.name
                info.priority = key.priority
        limit = context.settings.limits.body_bytes
        if length > limit:
            raise ProxyError(Reason.BODY_TOO_LARGE, 413, f"the request body is larger than {limit} bytes")
        if plan.steered:
            _read_steering(context, head, info, key)
    except ProxyError as error:
        error.surface = route.surface
        raise
    return info, key


def _authenticate(context: ProxyContext, client: ClientConnection, head: Head) -> KeySettings | None:
    auth, authenticator, known = client.accepted
    if auth is head.auth and authenticator is context.authenticator:
        return known
    said: dict[bytes, bytes] = {}
    for name, value in head.auth:
        if name in said:
            raise ProxyError(Reason.BAD_REQUEST, 400, f"there is more than one {name.decode()} header")
        said[name] = value
    key = context.authenticator.authenticate(
        said.get(b"authorization"),
        said.get(b"x-api-key"),
        said.get(b"api-key"),
        source=client.address,
        now=context.loop.time(),
    )
    if not head.forwarded:  # else the source may differ from request to request
        client.accepted = (head.auth, context.authenticator, key)
    return key


def read_early(info: RequestInfo, body: bytes, length: int) -> None:
    """What can be known of a request whose body is too large to be read whole, from the beginning of it."""
    info.body_bytes = info.prompt_bytes = max(length, len(body))
    match = _MODEL_EARLY.search(body[:_EARLY_BYTES])
    if match is not None:
        info.model = (match[1] or match[2]).decode("utf-8", "replace")


def may_use(key: KeySettings, info: RequestInfo, body: bytes, uploading: bool) -> bool:
    """Whether this key may send this request: every model that some runtime may read from it must be allowed.

    A request that names no model, or hides it in a body that cannot be read whole, could mean any.
    """
    if not key.models:
        return True
    if uploading:
        return False
    named = named_models(body) if body else frozenset()
    if named is None:
        return False
    if info.model is not None:
        named |= {info.model}
    return bool(named) and named.issubset(key.models)


def _read_steering(context: ProxyContext, head: Head, info: RequestInfo, key: KeySettings | None) -> None:
    """Session, deadline and priority from their headers; raises ProxyError on values that make no sense."""
    kept = head.kept
    session = kept.get(context.session_header) if context.session_header else None
    if session:
        info.session = stable_hash(session.decode("latin-1"))
    patience = kept.get(context.deadline_header) if context.deadline_header else None
    if patience is not None:
        info.deadline_at = context.loop.time() + _number(context.deadline_header, patience, 0.001, _PATIENCE_MAX_S)
    priority = kept.get(context.priority_header) if context.priority_header else None
    if priority is not None and (key is None or key.may_prioritize):
        info.priority = int(_number(context.priority_header, priority, -1000, 1000))


def _number(name: bytes | None, value: bytes, low: float, high: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        shown = (name or b"").decode()
        raise ProxyError(Reason.BAD_REQUEST, 400, f"the header {shown} must be a number from {low:g} to {high:g}")
    return number


def forwarded_lines(peer: str, tls: bool, head: Head, trusted: Sequence[Network]) -> bytes:
    """X-Forwarded-For and -Proto for the replica: replaced, or extended behind a trusted proxy."""
    scheme = b"https" if tls else b"http"
    said = dict(head.forwarded) if trusted else {}
    value = forwarded_for_value(peer, said.get(b"x-forwarded-for", b"").decode("latin-1"), trusted)
    if value != peer:
        scheme = said.get(b"x-forwarded-proto", scheme)
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (value.encode("latin-1"), scheme)


def common_lines(
    plan: Plan, client: ClientConnection, size: int | None, request_id: str, trusted: Sequence[Network]
) -> bytes:
    """The lines of a request's head that are the same for every replica, and its empty line.

    `size` of the body: None if there is none, negative if it is not known.
    """
    if client.tunnelling:
        framing = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    elif size is None:
        framing = b""
    else:
        framing = b"Content-Length: %d\r\n" % size if size >= 0 else b"Transfer-Encoding: chunked\r\n"
    forwarded = client.forwarded
    if plan.head.forwarded:
        forwarded = forwarded_lines(client.peer, client.tls, plan.head, trusted)
    return b"%b%b%bX-Request-Id: %b\r\n\r\n" % (plan.lines, forwarded, framing, request_id.encode())
