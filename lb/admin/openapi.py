"""The OpenAPI 3.1 document of the admin API. Record schemas come from the records themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from lb.explain import Explanation
from lb.metrics import Reload
from lb.runtime import Conformance
from lb.settings import BackendSettings
from lb.views import BalancerView, DemandView, ReplicaView
from lb.wire import Share
from nvml.sample import NodeSnapshot
from nvml.wire import VERSION as WIRE_VERSION

JSON = dict[str, Any]

_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The replica's id, percent-encoded, or its host:port.",
}
_REQUEST_ID = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The value of the reply's X-Request-Id header.",
}
_POOL = {"name": "pool", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Its name."}
_AT = {
    "name": "at",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "RFC 3339 with a zone, or epoch seconds; absent: now.",
}
_POOL_DECISION: JSON = {
    "type": "object",
    "required": ["pool", "at"],
    "properties": {
        "pool": {"type": "string"},
        "at": {"type": ["number", "null"], "description": "Epoch seconds; null: nothing was decided yet."},
        "sentence": {"type": "string", "description": "What is done and why, as in the log."},
        "record": {"type": "object", "description": "Every proposal, what bound, the band of demand, lead time, cost."},
        "replicas": {"type": "array", "items": {"type": "object"}, "description": "As of the last tick."},
    },
}
_POOLS: JSON = {
    "type": "object",
    "required": ["pools"],
    "properties": {"pools": {"type": "array", "items": {"$ref": "#/components/schemas/PoolDecision"}}},
}
_COUNTS: JSON = {"type": "object", "additionalProperties": {"type": "integer"}}
_FEEDS: JSON = {
    "type": "object",
    "required": ["probes", "readings", "failed", "dropped", "missing", "replicas"],
    "properties": {
        "probes": {**_COUNTS, "description": "Since the start, by outcome."},
        "readings": {"type": "integer", "description": "Of load, since the start."},
        "failed": {**_COUNTS, "description": "Readings that brought nothing, by runtime."},
        "dropped": {
            "type": "array",
            "description": "Numbers that could not be right.",
            "items": {"type": "object", "required": ["runtime", "field", "count"]},
        },
        "missing": {
            "type": "array",
            "description": "Readings in which a metric was not there.",
            "items": {"type": "object", "required": ["runtime", "metric", "count"]},
        },
        "replicas": {
            "type": "object",
            "description": "What each replica turned out to tell; null before it was recognised.",
            "additionalProperties": {"oneOf": [{"$ref": "#/components/schemas/Conformance"}, {"type": "null"}]},
        },
    },
}
_OBJECT: JSON = {"type": "object"}
_ERROR: JSON = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "For programs; stable."},
                "message": {"type": "string", "description": "For people: what is wrong and what would be right."},
            },
        }
    },
}
_DRAIN: JSON = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "deadline": {
            "type": ["string", "null"],
            "examples": ["60s"],
            "description": "Running requests are ended after this duration; null or absent: as the policy says.",
        }
    },
}
_STATUS: JSON = {
    "type": "object",
    "required": ["version", "state", "uptime_s", "connections", "replicas", "policy_hash", "last_reload"],
    "properties": {
        "version": {"type": "string"},
        "state": {"type": "string", "description": "`ready`, or why it takes no requests."},
        "uptime_s": {"type": "number"},
        "connections": {"type": "integer", "description": "Client connections that are open."},
        "replicas": {"type": "object", "additionalProperties": {"type": "integer"}, "description": "Count by state."},
        "policy_hash": {"type": ["string", "null"]},
        "last_reload": {"oneOf": [{"$ref": "#/components/schemas/Reload"}, {"type": "null"}]},
    },
}
_REMOVED: JSON = {
    "type": "object",
    "required": ["id", "state"],
    "properties": {"id": {"type": "string"}, "state": {"const": "removing"}},
}
_STATE: JSON = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}


def _as_sent(components: JSON) -> None:
    """Make the GPU records what `/v1/node` sends: ages where these have times, as clocks are not shared."""
    age = {"type": "number", "minimum": 0, "description": "Seconds since the reading."}
    for name in ("NodeSnapshot", "GpuSnapshot"):
        record = components[name]
        record["properties"] = {**record["properties"], "age_s": age}
        del record["properties"]["taken_at"]
        record["required"] = ["age_s" if field == "taken_at" else field for field in record["required"]]
    components["GpuSnapshot"]["properties"]["takes_new_work"] = {"type": "boolean"}
    node: JSON = components["NodeSnapshot"]
    node["properties"]["version"] = {"const": WIRE_VERSION}
    node["properties"]["replicas"] = {"type": "array", "items": _ref("Share")}
    node["required"] = [*node["required"], "version", "replicas"]


def document(version: str) -> JSON:
    """The whole document. Numbers that are not finite (a backlog without a replica) are null in answers."""
    records = (ReplicaView, BalancerView, DemandView, Explanation, Reload, Share, NodeSnapshot, Conformance)
    (*_, components) = msgspec.json.schema_components(records, ref_template="#/components/schemas/{name}")
    components = msgspec.json.decode(msgspec.json.encode(components))  # defaults that are tuples become lists
    backend = BackendSettings.model_json_schema(ref_template="#/components/schemas/{model}")
    components |= backend.pop("$defs", {})
    _as_sent(components)
    schemas = {**components, "Error": _ERROR, "Drain": _DRAIN, "Status": _STATUS, "Backend": backend,
               "Pools": _POOLS, "PoolDecision": _POOL_DECISION, "Feeds": _FEEDS}  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate admin API",
            "version": version,
            "description": "Replicas, decisions, metrics, health and policy of one Tidegate process.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:9400"}],
        "security": [{}, {"token": []}],
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Needed where `admin.token` is set."}
            },
        },
    }


def _paths() -> JSON:
    return {**_process_paths(), **_replica_paths(), **_decision_paths()}


def _process_paths() -> JSON:
    return {
        "/": {"get": _operation("index", "A page for people.", {"200": _content("The page.", "text/html")})},
        "/healthz": {
            "get": _operation(
                "healthz", "Whether the process is alive.", {"200": _json("It is.", _STATE)}, is_open=True
            )
        },
        "/readyz": {
            "get": _operation(
                "readyz",
                "Whether it takes requests.",
                {"200": _json("It does.", _STATE), "503": _json("It starts or drains.", _STATE)},
                is_open=True,
            )
        },
        "/metrics": {
            "get": _operation(
                "metrics", "Prometheus metrics.", {"200": _content("Text format.", "text/plain")}, is_open=True
            )
        },
        "/openapi.json": {"get": _operation("openapi", "This document.", {"200": _json("It.", _OBJECT)})},
        "/v1/status": {
            "get": _operation(
                "status", "Version, state and last reload.", {"200": _json("The status.", _ref("Status"))}
            )
        },
    }


def _replica_paths() -> JSON:
    replica = _json("The replica now.", _ref("ReplicaView"))
    return {
        "/v1/replicas": {
            "get": _operation(
                "listReplicas", "The balancer's view.", {"200": _json("All replicas.", _ref("BalancerView"))}
            ),
            "post": _operation(
                "addReplica",
                "Add a replica, or change one that was added here.",
                {
                    "200": _json("It was there and has these settings now.", _ref("ReplicaView")),
                    "201": _json("It was added.", _ref("ReplicaView")),
                    **_errors(409, 413, 415, 422),
                },
                body=_ref("Backend"),
            ),
        },
        "/v1/replicas/{id}": {
            "parameters": [_ID],
            "get": _operation("getReplica", "One replica.", {"200": replica, **_errors(404)}),
            "delete": _operation(
                "removeReplica",
                "Remove a replica that was added here: no new work, what runs on it ends, then it is forgotten.",
                {"202": _json("It is being removed.", _REMOVED), **_errors(404, 409, 415)},
            ),
        },
        "/v1/replicas/{id}/drain": {
            "parameters": [_ID],
            "post": _operation(
                "drainReplica",
                "No new work for it; what runs on it may end.",
                {"202": replica, **_errors(404, 413, 415, 422)},
                body=_ref("Drain"),
                body_required=False,
            ),
        },
        "/v1/replicas/{id}/undrain": {
            "parameters": [_ID],
            "post": _operation("undrainReplica", "Take it back.", {"202": replica, **_errors(404, 413, 415)}),
        },
    }


def _decision_paths() -> JSON:
    return {
        "/v1/explain/{request_id}": {
            "parameters": [_REQUEST_ID],
            "get": _operation(
                "explain",
                "Why a recent request went where it went: every candidate, every term.",
                {"200": _json("The decision.", _ref("Explanation")), **_errors(404)},
            ),
        },
        "/v1/demand": {
            "get": _operation("demand", "Offered demand per model.", {"200": _json("The demand.", _ref("DemandView"))})
        },
        "/v1/feeds": {
            "get": _operation(
                "feeds",
                "What probes and readings of replicas brought, and what each replica tells of itself.",
                {"200": _json("The totals and the replicas.", _ref("Feeds"))},
            )
        },
        "/v1/pools": {
            "get": _operation(
                "pools", "Every scaled pool with its last decision.", {"200": _json("All pools.", _ref("Pools"))}
            )
        },
        "/v1/pools/{pool}": {
            "parameters": [_POOL, _AT],
            "get": _operation(
                "explainPool",
                "Why a pool has its size: the decision in force at an instant, with everything behind it.",
                {"200": _json("The decision.", _ref("PoolDecision")), **_errors(404, 422)},
            ),
        },
        "/v1/node": {
            "get": _operation(
                "node",
                "This machine's GPUs, and what this process has in flight at each replica: what peers read.",
                {"200": _json("The node.", _ref("NodeSnapshot"))},
            )
        },
        "/v1/reload": {
            "post": _operation(
                "reload",
                "Read the policy again. A bad one is refused whole and the old one stays.",
                {"200": _json("It is in force.", _ref("Reload")), **_errors(409, 413, 415, 422)},
            )
        },
    }


def _operation(
    name: str, summary: str, responses: JSON, *, body: JSON | None = None, body_required: bool = True,
    is_open: bool = False,
) -> JSON:  # fmt: skip
    operation: JSON = {"operationId": name, "summary": summary, "responses": dict(responses)}
    if is_open:
        operation["security"] = [{}]
    else:
        operation["responses"] |= _errors(401, 403, 408)
    if body is not None:
        operation["requestBody"] = {"required": body_required, "content": {"application/json": {"schema": body}}}
    return operation


def _ref(name: str) -> JSON:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: JSON) -> JSON:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _content(description: str, media_type: str) -> JSON:
    return {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}


_MEANING = {
    401: "The token is missing or wrong.",
    403: "The request comes from a web page, or names another host.",
    404: "There is no such thing.",
    408: "The request did not arrive in time.",
    409: "Not in this state.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "A value cannot be used; the message names it.",
}


def _errors(*statuses: int) -> JSON:
    return {str(status): _json(_MEANING[status], _ref("Error")) for status in statuses}
