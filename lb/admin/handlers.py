"""What each path of the admin API does."""

from __future__ import annotations

import asyncio
import html
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lb.admin.feeds import Feeds, feeds_message
from lb.admin.guard import AdminError, json_response
from lb.admin.openapi import document
from lb.endpoint import Endpoint
from lb.errors import SettingsError
from lb.metrics import CONTENT_TYPE, LbMetrics, Reload
from lb.settings import BackendSettings
from lb.settings.durations import Seconds
from lb.source import endpoint_of
from lb.targets import is_allowed, is_name, refuse_addresses, refuse_host
from lb.wire import node_message
from nvml.sample import NodeSnapshot

if TYPE_CHECKING:
    from lb.gateway import Gateway

log = logging.getLogger(__name__)

SOURCE = "admin"
"""Name under which the gateway knows the replicas added here."""
MAX_ADDED = 1000
"""Replicas added over the API; more than anybody adds by hand."""
RESOLVE_S = 5.0
_SHOWN = (
    "/v1/status", "/v1/replicas", "/v1/demand", "/v1/feeds", "/v1/pools", "/v1/node", "/metrics", "/healthz",
    "/readyz", "/openapi.json",
)  # fmt: skip
"""Links of the page for people."""

Body = TypeVar("Body", bound=BaseModel)


async def _no_pool(pool: str, at: float | None) -> None:
    return None


@dataclass(frozen=True, slots=True)
class AdminHooks:
    """What the process answers for the admin API."""

    version: str
    readiness: Callable[[], str]
    """Empty when it takes requests; otherwise why not: `starting`, `draining`."""
    reload: Callable[[], Awaitable[Reload]] | None = None
    """Read the policy again; None: there is no policy file."""
    details: Callable[[], Mapping[str, object]] = dict
    """Further entries of the status: policy hash, sources."""
    allowed_hosts: tuple[str, ...] = ()
    """Replica hosts let through although they look like a metadata service."""
    gpus: Callable[[], NodeSnapshot | None] = lambda: None
    """This node's GPUs as they may be believed now; None: they are not read."""
    feeds: Feeds | None = None
    """Probes and readings of replicas; None: there are none."""
    pools: Callable[[], Sequence[Mapping[str, object]]] = tuple
    """Every scaled pool with its last decision."""
    explain_pool: Callable[[str, float | None], Awaitable[Mapping[str, object] | None]] = _no_pool
    """The decision on a pool in force at an instant (epoch seconds; None: now); None: none is known."""


class DrainBody(BaseModel):
    """Body of a drain; may be empty."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    deadline: Annotated[Seconds, Field(ge=0)] | None = None
    """Requests may run this long, then they are ended; null: as the policy says."""


class Handlers:
    """One method per path."""

    def __init__(self, gateway: Gateway, metrics: LbMetrics, hooks: AdminHooks) -> None:
        self._gateway = gateway
        self._metrics = metrics
        self._hooks = hooks
        self._added: dict[str, Endpoint] = {}
        self._started_at = gateway.now()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.index),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            web.get("/openapi.json", self.openapi),
            web.get("/v1/status", self.status),
            web.get("/v1/replicas", self.replicas),
            web.post("/v1/replicas", self.add),
            web.get("/v1/replicas/{id}", self.replica),
            web.delete("/v1/replicas/{id}", self.remove),
            web.post("/v1/replicas/{id}/drain", self.drain),
            web.post("/v1/replicas/{id}/undrain", self.undrain),
            web.get("/v1/explain/{request_id}", self.explain),
            web.get("/v1/demand", self.demand),
            web.get("/v1/feeds", self.feeds),
            web.get("/v1/pools", self.pools),
            web.get("/v1/pools/{pool}", self.pool),
            web.get("/v1/node", self.node),
            web.post("/v1/reload", self.reload),
        ]

    async def healthz(self, request: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        reason = self._hooks.readiness()
        return json_response({"status": reason or "ready"}, 503 if reason else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, request: web.Request) -> web.Response:
        return json_response(document(self._hooks.version))

    async def status(self, request: web.Request) -> web.Response:
        now = self._gateway.now()
        states: dict[str, int] = {}
        for replica in self._gateway.balancer.view(now).replicas:
            states[str(replica.state)] = states.get(str(replica.state), 0) + 1
        reload = self._metrics.last_reload
        return json_response(
            {
                "version": self._hooks.version,
                "state": self._hooks.readiness() or "ready",
                "uptime_s": round(now - self._started_at, 3),
                "connections": self._metrics.open_connections,
                "replicas": states,
                "policy_hash": reload.policy_hash if reload is not None else None,
                "last_reload": reload,
                **self._hooks.details(),
            }
        )

    async def replicas(self, request: web.Request) -> web.Response:
        return json_response(self._gateway.balancer.view(self._gateway.now()))

    async def replica(self, request: web.Request) -> web.Response:
        return self._shown(self._find(request))

    async def add(self, request: web.Request) -> web.Response:
        settings = await _body(request, BackendSettings)
        try:
            endpoint = endpoint_of(settings)
            beside = urlsplit(settings.metrics_url).hostname if settings.metrics_url else None
        except (SettingsError, ValueError) as error:
            raise AdminError(422, "invalid_url", f"url: {error}") from None
        await self._check_target("url", endpoint.host)
        if beside is not None:
            await self._check_target("metrics_url", beside)
        allowed = is_allowed(endpoint.host, self._hooks.allowed_hosts)
        endpoint = replace(endpoint, guarded=is_name(endpoint.host) and not allowed)
        known = {(other.host, other.port, other.base_path): other for other in self._gateway.endpoints()}
        present = known.get((endpoint.host, endpoint.port, endpoint.base_path))
        if present is not None and present.id not in self._added:
            raise AdminError(409, "replica_exists", f"{present.id} is listed by another source; change it there")
        if present is None and len(self._added) >= MAX_ADDED:
            raise AdminError(409, "too_many_replicas", f"at most {MAX_ADDED} replicas can be added here")
        self._added[endpoint.id] = endpoint
        self._gateway.set_source(SOURCE, tuple(self._added.values()))
        log.info("a replica was added over the admin API", extra={"replica": endpoint.id})
        return self._shown(endpoint.id, 201 if present is None else 200)

    async def remove(self, request: web.Request) -> web.Response:
        replica_id = self._find(request)
        if replica_id not in self._added:
            raise AdminError(
                409, "listed_elsewhere", f"{replica_id} is listed by a source; remove it there, or drain it here"
            )
        del self._added[replica_id]
        self._gateway.set_source(SOURCE, tuple(self._added.values()))
        log.info("a replica was removed over the admin API", extra={"replica": replica_id})
        return json_response({"id": replica_id, "state": "removing"}, 202)

    async def drain(self, request: web.Request) -> web.Response:
        replica_id = self._find(request)
        body = await _body(request, DrainBody)
        self._gateway.drain(replica_id, body.deadline)
        return self._shown(replica_id, 202)

    async def undrain(self, request: web.Request) -> web.Response:
        replica_id = self._find(request)
        self._gateway.undrain(replica_id)
        return self._shown(replica_id, 202)

    async def explain(self, request: web.Request) -> web.Response:
        request_id = request.match_info["request_id"]
        explanation = self._gateway.balancer.explain(request_id)
        if explanation is None:
            raise AdminError(404, "unknown_request", "no recent decision has this request id; the last 4,096 are kept")
        return json_response(explanation)

    async def demand(self, request: web.Request) -> web.Response:
        return json_response(self._gateway.balancer.demand(self._gateway.now()))

    async def feeds(self, request: web.Request) -> web.Response:
        replicas = self._gateway.balancer.view(self._gateway.now()).replicas
        return json_response(feeds_message(self._hooks.feeds, (replica.id for replica in replicas)))

    async def pools(self, request: web.Request) -> web.Response:
        return json_response({"pools": list(self._hooks.pools())})

    async def pool(self, request: web.Request) -> web.Response:
        name, at = request.match_info["pool"], request.query.get("at")
        found = await self._hooks.explain_pool(name, None if at is None else _instant(at))
        if found is None:
            raise AdminError(404, "unknown_pool", "no decision on this pool is known for then; see GET /v1/pools")
        return json_response(found)

    async def node(self, request: web.Request) -> web.Response:
        now = self._gateway.now()
        gpus = self._hooks.gpus() or NodeSnapshot(taken_at=now, detail="GPUs are not read here")
        return json_response(node_message(gpus, self._gateway.balancer.view(now).replicas, now))

    async def reload(self, request: web.Request) -> web.Response:
        if self._hooks.reload is None:
            raise AdminError(409, "no_policy", "Tidegate was started without a policy file; there is nothing to reload")
        result = await self._hooks.reload()
        if not result.ok:
            raise AdminError(422, "policy_refused", result.error)
        return json_response(result)

    async def index(self, request: web.Request) -> web.Response:
        rows = "".join(
            f"<tr><td>{html.escape(replica.id)}<td>{html.escape(str(replica.state))}<td>{replica.in_flight}"
            for replica in self._gateway.balancer.view(self._gateway.now()).replicas
        )
        links = "".join(f'<li><a href="{path}">{path}</a>' for path in _SHOWN)
        page = (
            "<!doctype html><meta charset=utf-8><title>Tidegate</title><style>body{font:14px sans-serif;margin:2em}"
            "td,th{padding:.2em 1em;text-align:left}</style>"
            f"<h1>Tidegate {html.escape(self._hooks.version)}</h1><p>{html.escape(self._hooks.readiness() or 'ready')}"
            f"<table><tr><th>replica<th>state<th>in flight{rows}</table><ul>{links}</ul>"
        )
        return web.Response(text=page, content_type="text/html")

    def _find(self, request: web.Request) -> str:
        """The replica that the path names: by its id, percent-encoded, or by `host:port`."""
        wanted = request.match_info["id"]
        replicas = self._gateway.balancer.view(self._gateway.now()).replicas
        for replica in replicas:
            if wanted in (replica.id, replica.url, replica.url.partition("://")[2]):
                return replica.id
        raise AdminError(404, "unknown_replica", "no replica has this id; GET /v1/replicas lists them")

    def _shown(self, replica_id: str, status: int = 200) -> web.Response:
        for replica in self._gateway.balancer.view(self._gateway.now()).replicas:
            if replica.id == replica_id:
                return json_response(replica, status)
        raise AdminError(404, "unknown_replica", "the replica is gone")

    async def _check_target(self, field: str, host: str) -> None:
        allowed = self._hooks.allowed_hosts
        refusal = refuse_host(host, allowed)
        if refusal is None:
            refusal = refuse_addresses(host, await _resolve(host), allowed)
        if refusal is not None:
            raise AdminError(422, "forbidden_target", f"{field}: {refusal}")


async def _body(request: web.Request, model: type[Body]) -> Body:
    raw = await request.read()
    try:
        return model.model_validate_json(raw or b"{}", by_name=False, by_alias=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise AdminError(422, "invalid_body", f"{where}: {first['msg']}") from None


def _instant(text: str) -> float:
    """Epoch seconds, from a number or from RFC 3339."""
    try:
        # A `+` of an offset that was not percent-encoded arrives as a space.
        value = float(text) if text.replace(".", "", 1).isdigit() else _epoch(text.replace(" ", "+"))
    except (ValueError, OverflowError):
        raise AdminError(422, "invalid_at", "at: write RFC 3339 with a zone, or epoch seconds") from None
    return value


def _epoch(text: str) -> float:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("no zone")
    return at.timestamp()


async def _resolve(host: str) -> list[str]:
    """Addresses of a host; none if it cannot be resolved now, which is no reason to refuse it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return []
    return [str(sockaddr[0]) for *_, sockaddr in found]
