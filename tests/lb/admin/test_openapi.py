"""The OpenAPI document: valid, and in step with the routes and with what they answer."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from lb.admin.openapi import document
from tests.lb.admin.conftest import Admin


def test_the_document_is_valid() -> None:
    validate(document("1.2.3"), cls=OpenAPIV31SpecValidator)


async def test_it_lists_exactly_the_routes(admin: Admin) -> None:
    documented = {
        (method.upper(), path)
        for path, item in document("1").get("paths", {}).items()
        for method in item
        if method != "parameters"
    }
    served = {
        (route.method, route.resource.canonical)
        for route in admin.server.app.router.routes()
        if route.method != "HEAD" and isinstance(route.resource, web.Resource)
    }
    assert documented == served


async def test_answers_have_the_fields_that_it_promises(admin: Admin) -> None:
    admin.route_one("request-1")
    status, served = await admin.call("GET", "/openapi.json")
    assert status == 200
    schemas = served["components"]["schemas"]
    replica = quote("http://127.0.0.1:8001", safe="")
    for path, name in {
        "/v1/replicas": "BalancerView",
        f"/v1/replicas/{replica}": "ReplicaView",
        "/v1/demand": "DemandView",
        "/v1/explain/request-1": "Explanation",
        "/v1/status": "Status",
        "/v1/node": "NodeSnapshot",
        "/v1/feeds": "Feeds",
    }.items():
        status, answer = await admin.call("GET", path)
        assert status == 200
        assert set(schemas[name]["required"]) <= set(answer), name
        assert name == "Status" or set(answer) <= set(schemas[name]["properties"]), name


def test_every_operation_has_a_name_and_a_summary() -> None:
    operations = [
        operation for item in document("1")["paths"].values() for key, operation in item.items() if key != "parameters"
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(operations)
    assert all(operation["summary"].endswith(".") for operation in operations)
