"""What the admin API does."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lb.metrics import Reload
from tests.lb.admin.conftest import Admin, MakeAdmin

STATIC = quote("http://127.0.0.1:8001", safe="")


async def test_liveness_and_readiness(admin: Admin) -> None:
    assert await admin.call("GET", "/healthz") == (200, {"status": "ok"})
    assert await admin.call("GET", "/readyz") == (200, {"status": "ready"})
    admin.readiness = "draining"
    assert await admin.call("GET", "/readyz") == (503, {"status": "draining"})
    assert await admin.call("GET", "/healthz") == (200, {"status": "ok"})


async def test_metrics_are_prometheus_text(admin: Admin) -> None:
    async with admin.session.get(admin.base + "/metrics") as reply:
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name for family in text_string_to_metric_families(await reply.text())}
    assert {"tidegate_replica_state", "tidegate_requests", "tidegate_build_info", "process_open_fds"} <= families


async def test_replicas_are_listed(admin: Admin) -> None:
    status, view = await admin.call("GET", "/v1/replicas")
    assert status == 200
    assert [replica["id"] for replica in view["replicas"]] == ["http://127.0.0.1:8001"]
    status, replica = await admin.call("GET", f"/v1/replicas/{STATIC}")
    assert (status, replica["models"]) == (200, ["llama"])
    assert (await admin.call("GET", "/v1/replicas/127.0.0.1:8001"))[1]["id"] == "http://127.0.0.1:8001"


async def test_a_replica_is_added_changed_and_removed(admin: Admin) -> None:
    status, replica = await admin.call("POST", "/v1/replicas", {"url": "http://10.0.0.9:8000", "models": ["qwen"]})
    assert (status, replica["id"], replica["models"]) == (201, "http://10.0.0.9:8000", ["qwen"])
    assert [endpoint.host for endpoint in admin.gateway.endpoints()] == ["10.0.0.9", "127.0.0.1"]
    status, replica = await admin.call("POST", "/v1/replicas", {"url": "http://10.0.0.9:8000", "models": ["phi"]})
    assert (status, replica["models"]) == (200, ["phi"])
    status, answer = await admin.call("DELETE", "/v1/replicas/10.0.0.9:8000")
    assert (status, answer["state"]) == (202, "removing")
    assert [endpoint.host for endpoint in admin.gateway.endpoints()] == ["127.0.0.1"]


async def test_a_replica_of_another_source_is_not_taken_over_or_removed(admin: Admin) -> None:
    status, answer = await admin.call("POST", "/v1/replicas", {"url": "http://127.0.0.1:8001"})
    assert (status, answer["error"]["code"]) == (409, "replica_exists")
    status, answer = await admin.call("DELETE", f"/v1/replicas/{STATIC}")
    assert (status, answer["error"]["code"]) == (409, "listed_elsewhere")


async def test_a_drained_replica_gets_no_work_until_it_is_taken_back(admin: Admin) -> None:
    await admin.call("POST", "/v1/replicas", {"url": "http://127.0.0.1:8002", "models": ["llama"]})
    status, replica = await admin.call("POST", f"/v1/replicas/{STATIC}/drain", {"deadline": "60s"})
    assert (status, replica["state"]) == (202, "draining")
    assert replica["drain_left_s"] == pytest.approx(60, abs=1)
    status, replica = await admin.call("POST", f"/v1/replicas/{STATIC}/undrain")
    assert status == 202
    assert replica["state"] != "draining"
    assert (await admin.call("POST", f"/v1/replicas/{STATIC}/drain"))[0] == 202


@pytest.mark.parametrize("method_path", ["GET ", "DELETE ", "POST /drain", "POST /undrain"])
async def test_an_unknown_replica_is_404(admin: Admin, method_path: str) -> None:
    method, _, path = method_path.partition(" ")
    status, answer = await admin.call(method, f"/v1/replicas/nobody{path}")
    assert (status, answer["error"]["code"]) == (404, "unknown_replica")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "url: Field required"),
        ({"url": "10.0.0.1:8000"}, "url: "),
        ({"url": "unix:/run/vllm.sock"}, "url: "),
        ({"url": "file:///etc/passwd"}, "url: "),
        ({"url": "http://user:secret@10.0.0.1"}, "url: "),
        ({"url": "http://10.0.0.1", "weight": -1}, "weight: "),
        ({"url": "http://10.0.0.1", "weigth": 1}, "weigth: "),
        ({"url": 7}, "url: "),
        ([], "body: "),
        ("x", "body: "),
    ],
)
async def test_a_bad_body_is_422_and_the_field_is_named(admin: Admin, body: object, said: str) -> None:
    status, answer = await admin.call("POST", "/v1/replicas", body)
    assert status == 422
    assert answer["error"]["message"].startswith(said)
    assert "secret" not in answer["error"]["message"]


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254", "http://metadata.google.internal", "http://[fe80::1]:80", "http://0.0.0.0:80"]
)
async def test_l10_metadata_services_are_no_replicas(admin: Admin, url: str) -> None:
    status, answer = await admin.call("POST", "/v1/replicas", {"url": url})
    assert (status, answer["error"]["code"]) == (422, "forbidden_target")


@pytest.mark.parametrize("host", ["0xA9FEA9FE", "2852039166", "169.254.43518", "0251.0376.0251.0376"])
async def test_l10_other_spellings_of_an_address_do_not_help(admin: Admin, host: str) -> None:
    status, answer = await admin.call("POST", "/v1/replicas", {"url": f"http://{host}:80"})
    assert (status, answer["error"]["code"]) == (422, "forbidden_target")


async def test_l10_an_allowed_host_is_let_through_and_not_checked_again(make_admin: MakeAdmin) -> None:
    admin = await make_admin(allowed_hosts=("169.254.7.7", "ip6-localhost"))
    for host in ("169.254.7.7", "10.0.0.9", "localhost", "ip6-localhost"):
        assert (await admin.call("POST", "/v1/replicas", {"url": f"http://{host}:8000"}))[0] == 201
    assert [endpoint.host for endpoint in admin.gateway.endpoints() if endpoint.guarded] == ["localhost"]


async def test_l10_metrics_are_not_read_from_a_metadata_service(admin: Admin) -> None:
    body = {"url": "http://10.0.0.9:8000", "metrics_url": "http://169.254.169.254/metrics"}
    status, answer = await admin.call("POST", "/v1/replicas", body)
    assert (status, answer["error"]["code"]) == (422, "forbidden_target")
    assert answer["error"]["message"].startswith("metrics_url: ")


async def test_a_decision_is_explained(admin: Admin) -> None:
    chosen = admin.route_one("request-1")
    status, explanation = await admin.call("GET", "/v1/explain/request-1")
    assert (status, explanation["request_id"], explanation["chosen"]) == (200, "request-1", chosen)
    assert [candidate["replica_id"] for candidate in explanation["candidates"]] == [chosen]
    status, answer = await admin.call("GET", "/v1/explain/request-2")
    assert (status, answer["error"]["code"]) == (404, "unknown_request")


async def test_demand_is_shown(admin: Admin) -> None:
    admin.route_one("request-1")
    status, demand = await admin.call("GET", "/v1/demand")
    assert status == 200
    assert demand["models"]["llama"]["offered_total"] == 1


async def test_reload_is_carried_out_and_shown(admin: Admin) -> None:
    status, result = await admin.call("POST", "/v1/reload")
    assert (status, result["ok"], admin.reloads) == (200, True, 1)
    status, answer = await admin.call("GET", "/v1/status")
    assert (answer["policy_hash"], answer["last_reload"]["ok"]) == ("abc", True)
    admin.reload_result = Reload(ok=False, at=1_800_000_001.0, policy_hash="abc", error="policy.yaml:3: lb.listen = 7")
    status, answer = await admin.call("POST", "/v1/reload")
    assert (status, answer["error"]["message"]) == (422, "policy.yaml:3: lb.listen = 7")
    assert (await admin.call("GET", "/v1/status"))[1]["last_reload"]["ok"] is False


async def test_without_a_policy_there_is_nothing_to_reload(make_admin: MakeAdmin) -> None:
    admin = await make_admin(policy=False)
    status, answer = await admin.call("POST", "/v1/reload")
    assert (status, answer["error"]["code"]) == (409, "no_policy")


async def test_status(admin: Admin) -> None:
    status, answer = await admin.call("GET", "/v1/status")
    assert status == 200
    assert answer["version"] == "1.2.3"
    assert answer["state"] == "ready"
    assert sum(answer["replicas"].values()) == 1
    assert answer["sources"] == {"static": {"endpoints": 1}}
    assert answer["last_reload"] is None


async def test_the_index_is_for_people_and_escapes(admin: Admin) -> None:
    status, page = await admin.call("GET", "/")
    assert status == 200
    assert "http://127.0.0.1:8001" in page
    assert "<script" not in page


async def test_unknown_paths_and_methods_are_answered_in_json(admin: Admin) -> None:
    status, answer = await admin.call("GET", "/nowhere")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    async with admin.session.put(admin.base + "/v1/replicas") as reply:
        assert reply.status == 405
        assert reply.headers["Allow"] == "GET,HEAD,POST"


async def test_answers_are_not_cached_or_framed(admin: Admin) -> None:
    async with admin.session.get(admin.base + "/v1/status") as reply:
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Frame-Options"] == "DENY"
