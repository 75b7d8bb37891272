"""From a request's head to an exchange: path, key, headers that steer, and the body's own words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lb.auth import Network, client_address, forwarded_for_value
from lb.errors import ProxyError, Reason
from lb.proxy.exchange import Exchange
from lb.proxy.local import local_answer
from lb.request import RequestInfo, SurfaceName
from lb.settings import KeySettings
from lb.surface import Route, Surface
from lb.surfaces import SURFACES

if TYPE_CHECKING:
    from lb.proxy.client import ClientConnection
    from lb.proxy.context import ProxyContext
    from lb.proxy.head import Head

_MODEL_EARLY = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"|name="model"\r\n\r\n([^\r\n]{1,256})\r\n')
_PATIENCE_MAX_S = 86_400.0


class Arrival:
    """A request whose head was accepted and whose body is awaited."""

    __slots__ = ("_key", "head", "info", "route", "surface")

    def __init__(self, head: Head, route: Route, info: RequestInfo, surface: Surface, key: KeySettings | None) -> None:
        self.head = head
        self.route = route
        self.info = info
        self.surface = surface
        self._key = key

    def exchange(self, context: ProxyContext, client: ClientConnection, body: bytes, uploading: bool) -> Exchange:
        """The exchange for this request; raises ProxyError if its key may not use its model.

        `body` is all of it, or its beginning while `uploading`.
        """
        info, head = self.info, self.head
        if uploading:
            info.body_bytes = info.prompt_bytes = max(head.content_length, len(body))
            match = _MODEL_EARLY.search(body[:_EARLY_BYTES])
            if match is not None:
                info.model = (match[1] or match[2]).decode("utf-8", "replace")
        elif body:
            info.body_bytes = len(body)
            if self.route.generates and b"content-encoding" not in head.kept:
                self.surface.read_request(body, info)
        if self._key is not None and self._key.models and info.model not in self._key.models:
            error = ProxyError(Reason.FORBIDDEN, 403, "this API key may not use that model", close=True)
            error.surface = info.surface
            raise error
        return Exchange(context, client, head, self.route, info, self.surface, body, uploading)


_EARLY_BYTES = 65_536
"""Where the model of a body that is too large to be read whole is looked for."""


def admit(context: ProxyContext, client: ClientConnection, head: Head) -> Arrival | bytes:
    """Judge a head. Returns the arrival whose body is to be read, or the bytes of a local answer; raises ProxyError."""
    if head.forwarded:
        trusted = context.settings.forwarding.trusted_proxies
        said = dict(head.forwarded).get(b"x-forwarded-for", b"") if trusted else b""
        client.address = client_address(client.peer, said.decode("latin-1"), trusted)
    answer = local_answer(context, head)
    if answer is not None and head.path not in _GUARDED:
        return answer
    route = context.paths.match("GET" if head.method == "HEAD" else head.method, head.path)
    if route is None:
        if context.paths.known(head.path):
            raise ProxyError(Reason.METHOD_NOT_ALLOWED, 405, f"{head.method} is not allowed on this path", close=True)
        raise ProxyError(
            Reason.NOT_FOUND, 404, "this path is not served here (the policy's `paths.allow` adds paths)", close=True
        )
    try:
        key = _authenticate(context, client, head)
        if answer is not None:
            return answer
        limit = context.settings.limits.body_bytes
        if head.content_length > limit:
            raise ProxyError(Reason.BODY_TOO_LARGE, 413, f"the request body is larger than {limit} bytes", close=True)
        info = RequestInfo(context.next_id(), route.surface, route.model_in_path)
        info.stream = route.streams_by_path
        if key is not None:
            info.tenant = key.name
            info.priority = key.priority
        if head.kept:
            _read_steering(context, head, info, key)
        if head.upgrade == b"websocket" and route.surface is SurfaceName.WEBSOCKET and head.method == "GET":
            client.tunnelling = True
    except ProxyError as error:
        error.surface = route.surface
        raise
    return Arrival(head, route, info, SURFACES[route.surface], key)


_GUARDED = frozenset({"/v1/models"})
"""Local answers that a key is needed for."""


def _authenticate(context: ProxyContext, client: ClientConnection, head: Head) -> KeySettings | None:
    authenticator = context.authenticator
    if not authenticator.required:
        return None
    said: dict[bytes, bytes] = {}
    for name, value in head.auth:
        if name in said:
            raise ProxyError(Reason.BAD_REQUEST, 400, f"there is more than one {name.decode()} header", close=True)
        said[name] = value
    return authenticator.authenticate(
        said.get(b"authorization"),
        said.get(b"x-api-key"),
        said.get(b"api-key"),
        source=client.address,
        now=context.loop.time(),
    )


def _read_steering(context: ProxyContext, head: Head, info: RequestInfo, key: KeySettings | None) -> None:
    """Session, deadline and priority from their headers; raises ProxyError on values that make no sense."""
    kept = head.kept
    session = kept.get(context.session_header) if context.session_header else None
    if session:
        info.session = hash(session)
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
