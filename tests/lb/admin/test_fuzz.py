"""Whatever is sent to the admin API, it never answers 5xx and never stops answering (L08)."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lb.admin.conftest import Admin, MakeAdmin

FIELDS = ["url", "models", "runtime", "zone", "weight", "max_in_flight", "metrics_url", "gpu_uuids", "deadline", "x"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["http://10.0.0.1:8000", "http://[", "https://\x00", "60s", "-1s", "http://a" + "b" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4).map(lambda body: json.dumps(body).encode()),
    VALUES.map(lambda body: json.dumps(body).encode()),
    st.just(b"[" * 5000),
)
NAMES = st.text(max_size=20).map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe="")) | st.sampled_from(
    ["127.0.0.1:8001", "%00", "%ff%fe", "..", ".", "%2e%2e%2f", "", "http%3A%2F%2F127.0.0.1%3A8001"]
)
PATHS = st.one_of(
    st.sampled_from(
        ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/status", "/v1/replicas", "/v1/demand"]
    ),
    st.just("/v1/reload"),
    NAMES.map(lambda name: f"/v1/replicas/{name}"),
    NAMES.map(lambda name: f"/v1/replicas/{name}/drain"),
    NAMES.map(lambda name: f"/v1/replicas/{name}/undrain"),
    NAMES.map(lambda name: f"/v1/explain/{name}"),
    NAMES.map(lambda name: f"/{name}?{name}"),
)
METHODS = st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "FOO"])
KINDS = st.sampled_from(["application/json", "application/json; charset=x", "text/plain", "", "/", "a/b/c;;="])


@given(calls=st.lists(st.tuples(METHODS, PATHS, BODIES, KINDS), min_size=20, max_size=20))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
async def test_l08_no_input_makes_it_fail(calls: list[tuple[str, str, bytes | None, str]], admin: Admin) -> None:
    for method, path, body, kind in calls:
        status, _ = await admin.call(method, path, data=body, Content_Type=kind)
        assert status < 500, (method, path, body, kind)
    assert (await admin.call("GET", "/healthz"))[0] == 200


POST = b"POST /v1/replicas HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
RAW = [
    b"GET http://evil/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //v1//status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/replicas/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/replicas/%00%0d%0a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: [\r\n\r\n",
    b"GET /v1/status HTTP/1.0\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    POST + b"Content-Length: 5\r\n\r\n\xff\xfe\xfd\xfc\xfb",
    POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    POST + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nxxxx",
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x00\xc8\x01\x00\x00",
    b"\x00" * 100 + b"\r\n\r\n",
    b"A" * 100_000,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n",
]


@pytest.mark.parametrize("number", range(len(RAW)))
async def test_l08_no_bytes_make_it_fail(make_admin: MakeAdmin, number: int) -> None:
    admin = await make_admin()
    host, _, port = admin.server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(RAW[number])
    writer.write_eof()
    async with asyncio.timeout(5):
        line = await reader.readline()
    assert not line or (line.startswith(b"HTTP/1.") and int(line.split()[1]) < 500), line
    writer.close()
    assert (await admin.call("GET", "/healthz"))[0] == 200
