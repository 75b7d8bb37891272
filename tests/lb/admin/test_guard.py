"""Who may speak to the admin API."""

from __future__ import annotations

import asyncio

import pytest

from lb.admin import AdminServer
from lb.errors import SettingsError
from tests.lb.admin.conftest import TOKEN, Admin, MakeAdmin

READS = [
    "/",
    "/openapi.json",
    "/v1/status",
    "/v1/replicas",
    "/v1/demand",
    "/v1/explain/x",
    "/v1/replicas/127.0.0.1:8001",
]


@pytest.mark.parametrize("path", [*READS, "/nowhere"])
async def test_a_token_is_asked_for(make_admin: MakeAdmin, path: str) -> None:
    admin = await make_admin(token=TOKEN)
    for authorization in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer " + "x" * 8000):
        headers = {} if authorization is None else {"Authorization": authorization}
        status, answer = await admin.call("GET", path, **headers)
        assert (status, answer["error"]["code"]) == (401, "unauthorized")
        assert TOKEN not in str(answer)
    status, _ = await admin.call("GET", path, Authorization=f"Bearer {TOKEN}")
    assert status in (200, 404)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_and_scrapers_need_no_token(make_admin: MakeAdmin, path: str) -> None:
    admin = await make_admin(token=TOKEN)
    status, _ = await admin.call("GET", path, Host="pod-7.example:9400")
    assert status == 200


@pytest.mark.parametrize("listen", ["0.0.0.0:9400", "192.168.1.4:9400", "[::]:9400", ":9400", "gpu-7:9400"])
async def test_l06_an_address_that_others_reach_needs_a_token(admin: Admin, listen: str) -> None:
    with pytest.raises(SettingsError, match=r"admin\.token"):
        AdminServer(admin.gateway, admin.metrics, None, listen=listen)  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9400"])
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_l07_web_pages_are_refused(make_admin: MakeAdmin, origin: str, token: str | None) -> None:
    admin = await make_admin(token=token)
    for method, path in (("POST", "/v1/reload"), ("GET", "/v1/replicas"), ("DELETE", "/v1/replicas/x")):
        status, answer = await admin.call(method, path, Origin=origin, Authorization=f"Bearer {TOKEN}")
        assert (status, answer["error"]["code"]) == (403, "forbidden")
    status, _ = await admin.call("GET", "/v1/status", Sec_Fetch_Site="cross-site", Authorization=f"Bearer {TOKEN}")
    assert status == 403
    assert admin.reloads == 0


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9400", "127.0.0.1.evil.example", "", "[::1", "localhost.evil"]
)
async def test_l07_a_rebound_name_is_refused(admin: Admin, host: str) -> None:
    status, answer = await admin.call("GET", "/v1/status", Host=host)
    assert (status, answer["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize("host", ["localhost:9400", "127.0.0.1", "127.0.0.1:1", "[::1]:9400", "LOCALHOST", "127.8.8.8"])
async def test_own_names_are_accepted(admin: Admin, host: str) -> None:
    status, _ = await admin.call("GET", "/v1/status", Host=host)
    assert status == 200


async def test_with_a_token_the_name_does_not_matter(make_admin: MakeAdmin) -> None:
    admin = await make_admin(token=TOKEN)
    status, _ = await admin.call("GET", "/v1/status", Host="tidegate.internal", Authorization=f"Bearer {TOKEN}")
    assert status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/v1/replicas", "/v1/reload", "/v1/replicas/127.0.0.1:8001/drain"])
async def test_l07_bodies_that_forms_can_send_are_refused(admin: Admin, kind: str, path: str) -> None:
    status, answer = await admin.call("POST", path, data=b'{"url": "http://10.0.0.1"}', Content_Type=kind)
    assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")
    assert len(admin.gateway.endpoints()) == 1


async def test_a_large_body_is_413(admin: Admin) -> None:
    status, _ = await admin.call("POST", "/v1/replicas", {"url": "x" * 70_000})
    assert status == 413


async def test_a_body_that_does_not_come_is_408(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lb.admin.guard.READ_S", 0.1)
    host, _, port = admin.server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()
