"""Group L, what concerns the data plane: keys, forwarded addresses, paths that must not be reachable, secrets."""

from __future__ import annotations

import pytest

from lb.access_log import access_fields
from lb.auth import key_digest
from lb.errors import Reason
from lb.log import render_json, render_text
from tests.lb.catalogue.client import chat, get
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import always
from tests.lb.catalogue.upstream import reply

KEY = "sk-canary-4f1d9c7e2b"
KEYS = [{"name": "team", "sha256": key_digest(KEY)}]
AUTHORIZED = f"Authorization: Bearer {KEY}\r\n"


BAD_KEYS = [
    "", "Authorization: Bearer wrong-canary\r\n", "Authorization: Bearer\r\n", "Authorization: Basic eDp5\r\n",
    "x-api-key: \r\n",
]  # fmt: skip


@pytest.mark.parametrize("header", BAD_KEYS)
async def test_l01_without_a_good_key_it_is_401_and_nothing_is_echoed(make_world: MakeWorld, header: str) -> None:
    world = await make_world(control=False, keys=KEYS, control_headers=AUTHORIZED)
    response = await world.ask(chat(headers=header))
    assert response.status == 401
    assert response.get("www-authenticate") == "Bearer"
    assert b"canary" not in response.body + response.raw_head
    assert not world.upstreams[0].requests
    assert world.recorder.reasons == [Reason.UNAUTHORIZED]


@pytest.mark.parametrize("name", ["Authorization: Bearer ", "x-api-key: ", "api-key: "])
async def test_l01_a_good_key_is_let_in_and_its_owner_is_the_tenant(make_world: MakeWorld, name: str) -> None:
    world = await make_world(control=False, keys=KEYS, control_headers=AUTHORIZED)
    assert (await world.ask(chat(headers=f"{name}{KEY}\r\n"))).status == 200
    assert world.recorder.records[0].tenant == "team"


async def test_l03_a_key_in_the_query_is_not_a_key(make_world: MakeWorld) -> None:
    world = await make_world(control=False, keys=KEYS, control_headers=AUTHORIZED)
    for query in (f"?api_key={KEY}", f"?key={KEY}", f"?access_token={KEY}"):
        assert (await world.ask(chat(path="/v1/chat/completions" + query))).status == 401
    assert not world.upstreams[0].requests


async def test_l04_a_source_that_guesses_has_to_wait(make_world: MakeWorld) -> None:
    world = await make_world(control=False, keys=KEYS, control_headers=AUTHORIZED)
    await world.ask(chat(headers=AUTHORIZED))
    statuses = [(await world.ask(chat(headers=f"Authorization: Bearer guess-{n}\r\n"))).status for n in range(30)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert (await world.ask(chat(headers=AUTHORIZED))).status == 200, "the good client of that address is locked out"


FORGED = (
    "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\n"
    "X-Forwarded-Host: evil\r\nX-Request-Id: forged\r\n"
)


async def test_l05_what_a_stranger_says_of_the_client_is_replaced(make_world: MakeWorld) -> None:
    world = await make_world()
    response = await world.ask(chat(headers=FORGED))
    [request] = world.upstreams[0].requests
    assert request.all("x-forwarded-for") == ["127.0.0.1"]
    assert request.all("x-forwarded-proto") == ["http"]
    for name in ("x-real-ip", "forwarded", "x-forwarded-host"):
        assert "6.6.6.6" not in (request.get(name) or "")
        assert request.get(name) != "evil"
    assert request.get("x-request-id") != "forged"
    assert response.get("x-request-id") == request.get("x-request-id")
    assert world.recorder.records[0].client == "127.0.0.1"


async def test_l05_what_a_trusted_proxy_says_is_kept_and_extended(make_world: MakeWorld) -> None:
    world = await make_world(forwarding={"trusted_proxies": ["127.0.0.0/8"]})
    await world.ask(chat(headers="X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"))
    [request] = world.upstreams[0].requests
    assert request.all("x-forwarded-for") == ["6.6.6.6, 203.0.113.7, 127.0.0.1"]
    assert request.all("x-forwarded-proto") == ["https"]
    assert world.recorder.records[0].client == "203.0.113.7"


ADMIN_PATHS = [
    "/flush_cache", "/update_weights_from_disk", "/update_weights", "/load_lora_adapter", "/v1/load_lora_adapter",
    "/unload_lora_adapter", "/server_info", "/get_server_info", "/metrics", "/slots", "/props", "/api/pull",
    "/api/delete", "/api/create", "/v2/repository/index", "/v2/repository/models/m/unload", "/start_profile",
    "/sleep", "/wake_up", "/reset_prefix_cache", "/collective_rpc", "/pause_generation", "/v1/status",
    "/v1/replicas", "/readyz", "/openapi.json", "/docs", "/abort_request", "/set_internal_state",
]  # fmt: skip
TRICKS = [
    "/v1/../metrics", "/v1/chat/completions/../../../metrics", "//metrics", "/v1//../metrics", "/%2e%2e/metrics",
    "/v1/%2e%2e/metrics", "/v1%2f..%2fmetrics", "/v1/..%2fmetrics", "/metrics;x", "/metrics%00", "/metrics/",
    "/./metrics", "/v1/chat/completions/..;/metrics", "/METRICS", "/flush_cache?x=/v1/chat/completions",
    "/flush_cache%3f/v1/chat/completions", "/v1/chat/completions%2f..%2f..%2fmetrics", "/%6detrics",
    "/v1/chat/completions/%2e%2e/%2e%2e/%2e%2e/flush_cache", "/v1\\..\\metrics", "/v1/.%2e/metrics",
    "/..%c0%af/metrics",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [*ADMIN_PATHS, *TRICKS])
async def test_l06_l09_paths_of_engines_and_of_our_own_admin_api_are_not_reachable(
    make_world: MakeWorld, path: str, method: str
) -> None:
    world = await make_world(control=False)
    response = await world.ask(chat(path=path) if method == "POST" else get(path))
    assert response.status in (400, 404, 405)
    assert not world.upstreams[0].connections


async def test_l11_no_secret_is_in_the_record_or_its_line(make_world: MakeWorld) -> None:
    world = await make_world(control=False, keys=KEYS, control_headers=AUTHORIZED)
    await world.ask(chat(headers=AUTHORIZED, text="canary-in-the-body", path="/v1/chat/completions?token=canary-query"))
    await world.ask(chat(headers="x-api-key: canary-wrong\r\nCookie: canary-cookie\r\n"))
    assert len(world.recorder.records) == 2
    for record in world.recorder.records:
        for render in (render_text, render_json):
            assert "canary" not in render(access_fields(record, 0.0))


@pytest.mark.parametrize("mode", ["strip", "forward", "replace"])
async def test_l15_what_becomes_of_the_clients_key_is_policy(make_world: MakeWorld, mode: str) -> None:
    world = await make_world(
        control=False,
        keys=KEYS,
        control_headers=AUTHORIZED,
        forwarding={"upstream_authorization": mode, "upstream_key": "env:UPSTREAM" if mode == "replace" else None},
        upstream_key="upstream-secret" if mode == "replace" else None,
    )
    await world.ask(chat(headers=f"{AUTHORIZED}api-key: other\r\n"))
    [request] = world.upstreams[0].requests
    expected = {"strip": [], "forward": [f"Bearer {KEY}"], "replace": ["Bearer upstream-secret"]}[mode]
    assert request.all("authorization") == expected
    assert mode == "forward" or not request.all("api-key") + request.all("x-api-key")


@pytest.mark.parametrize("value", ["a\\r\\nSet-Cookie: x", "a b", "x" * 300, 'a"b', "ünïcode", "<script>"])
async def test_l14_a_request_id_of_the_client_or_the_replica_is_not_echoed(make_world: MakeWorld, value: str) -> None:
    world = await make_world()
    echo = f"X-Request-Id: {value}\r\nContent-Type: application/json\r\n".encode()
    world.upstreams[0].script = always(reply(headers=echo))
    response = await world.ask(chat(headers=f"X-Request-Id: {value}\r\n", model="m"))
    assert len(response.all("x-request-id")) == 1
    assert value not in response.all("x-request-id")
    assert response.get("set-cookie") is None


async def test_l14_a_model_name_is_not_put_into_headers(make_world: MakeWorld) -> None:
    world = await make_world()
    response = await world.ask(chat(model="evil\r\nSet-Cookie: x"))
    assert response.status in (400, 404)
    assert response.get("set-cookie") is None
