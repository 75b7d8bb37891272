"""Calls, over a socket, to an API server that misbehaves as told."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lb.kube import (
    ConflictError,
    Explicit,
    ForbiddenError,
    GoneError,
    InCluster,
    KubeApi,
    KubeConfig,
    KubeError,
    NotYetError,
    PatchKind,
    ThrottledError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
)
from tests.lb.kube.api_server import PATH, ApiServer, Script


@pytest.mark.parametrize(
    ("call", "method", "content_type", "query"),
    [
        (lambda api: api.create(PATH, {"a": 1}), "POST", "application/json", {}),
        (lambda api: api.replace(f"{PATH}/x", {"a": 1}), "PUT", "application/json", {}),
        (lambda api: api.patch(f"{PATH}/x", {"a": 1}), "PATCH", "application/merge-patch+json", {}),
        (
            lambda api: api.patch(f"{PATH}/x", [{"op": "test"}], PatchKind.JSON, field_manager="me"),
            "PATCH",
            "application/json-patch+json",
            {"fieldManager": "me"},
        ),
        (
            lambda api: api.apply(f"{PATH}/x", {"a": 1}, field_manager="me"),
            "PATCH",
            "application/apply-patch+yaml",
            {"fieldManager": "me", "force": "false"},
        ),
        (lambda api: api.delete(f"{PATH}/x", {"gracePeriodSeconds": 0}), "DELETE", "application/json", {}),
    ],
)
async def test_each_kind_of_call(
    api: KubeApi,
    server: ApiServer,
    call: Callable[[KubeApi], Awaitable[object]],
    method: str,
    content_type: str,
    query: dict[str, str],
) -> None:
    await call(api)
    ((_, asked, told),) = server.calls
    assert asked.startswith(method)
    assert told["content-type"].split(";")[0] == content_type
    assert told["authorization"] == "Bearer first-token"
    assert query.items() <= told.items()
    assert json.loads(server.bodies[0])


async def test_a_list_is_all_of_its_pages(api: KubeApi, server: ApiServer) -> None:
    for number in range(25):
        server.put(f"pod-{number}")
    server.page = 10
    listing = await api.list_all(PATH, {"labelSelector": "app=llm"})
    assert len(listing.items) == 25
    assert [told.get("continue") for _, _, told in server.calls] == [None, "10", "20"]
    assert {told["labelSelector"] for _, _, told in server.calls} == {"app=llm"}


async def test_j05_a_replaced_token_is_used_from_the_next_call_on(
    api: KubeApi, access: Explicit, server: ApiServer
) -> None:
    server.script = [Script(401)]
    with pytest.raises(UnauthorizedError):
        await api.get(PATH)
    access.token_file.write_text("second-token")
    await api.get(PATH)
    assert [told["authorization"] for _, _, told in server.calls] == ["Bearer first-token", "Bearer second-token"]


async def test_j03_retry_after_is_honoured(api: KubeApi, server: ApiServer) -> None:
    server.script = [Script(429, {"Retry-After": "2"})]
    with pytest.raises(ThrottledError) as caught:
        await api.get(PATH)
    assert caught.value.retry_after_s == 2.0
    await api.call("GET", PATH, patient=True)
    (first, second) = [at for at, _, _ in server.calls]
    assert second - first >= 2.0


@pytest.mark.parametrize("status", [409, 500, 503, 504])
async def test_j04_at_most_one_call_a_second_in_any_error(api: KubeApi, server: ApiServer, status: int) -> None:
    server.always = Script(status)
    for _ in range(2):
        with pytest.raises(UnavailableError if status >= 500 else ConflictError):
            await api.call("GET", PATH, patient=True)
    times = [at for at, _, _ in server.calls]
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(times))


async def test_who_cannot_wait_is_told_how_long(api: KubeApi, server: ApiServer) -> None:
    server.script = [Script(503, {"Retry-After": "30"})]
    with pytest.raises(UnavailableError):
        await api.get(PATH)
    with pytest.raises(NotYetError) as caught:
        await api.get(PATH)
    assert caught.value.retry_after_s is not None
    assert 29 < caught.value.retry_after_s <= 30
    assert len(server.calls) == 1


async def test_j06_the_errors_of_one_pool_do_not_slow_another(api: KubeApi, server: ApiServer) -> None:
    other = api.for_pool()
    server.script = [Script(403, {"Retry-After": "30"})]
    with pytest.raises(ForbiddenError):
        await api.get(PATH)
    await other.get(PATH)
    assert server.calls[1][0] - server.calls[0][0] < 1.0


async def test_an_eviction_that_a_budget_forbids_is_no_sign_of_trouble(api: KubeApi, server: ApiServer) -> None:
    body = json.dumps({"reason": "TooManyRequests", "details": {"causes": [{"reason": "DisruptionBudget"}]}}).encode()
    server.always = Script(429, {"Content-Type": "application/json"}, body)
    for _ in range(2):
        with pytest.raises(ThrottledError) as caught:
            await api.create(f"{PATH}/x/eviction", {"kind": "Eviction"})
        assert caught.value.causes == ("DisruptionBudget",)
    assert 1.0 <= server.calls[1][0] - server.calls[0][0] < 2.0


async def test_silence_ends_at_the_deadline(access: Explicit, server: ApiServer) -> None:
    server.always = Script(hang=True)
    api = KubeApi(access, deadline_s=0.2)
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"no answer within 0\.2 s"):
        await api.get(PATH)
    assert time.monotonic() - began < 1.0
    await api.close()


@pytest.mark.parametrize("body", [b"not json", b"[]", b"3", b""])
async def test_an_answer_that_is_no_object_is_an_error(api: KubeApi, server: ApiServer, body: bytes) -> None:
    server.script = [Script(200, {"Content-Type": "application/json"}, body)]
    with pytest.raises((UnreachableError, UnavailableError)):
        await api.get(PATH)


async def test_a_kept_connection_that_breaks_is_not_tried_again_behind_our_back(
    api: KubeApi, server: ApiServer
) -> None:
    await api.get(PATH)
    server.script = [Script(cut=True)]
    with pytest.raises(UnreachableError):
        await api.replace(f"{PATH}/x", {"a": 1})
    assert [asked for _, asked, _ in server.calls] == [f"GET {PATH}", f"PUT {PATH}/x"]


async def test_nobody_listens(access: Explicit) -> None:
    api = KubeApi(replace(access, url="http://127.0.0.1:1"))
    with pytest.raises(UnreachableError):
        await api.get(PATH)
    await api.close()


async def test_inside_a_cluster(access: Explicit, server: ApiServer, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "ca.crt").write_bytes(access.ca_file.read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.url.rpartition(":")[2])
    api = KubeApi(InCluster(tmp_path))
    with pytest.raises(UnreachableError, match=r"(?i)ssl"):
        await api.get(PATH)  # it speaks TLS, as it must, and the test server does not
    await api.close()


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (InCluster(Path("/nowhere")), "KUBERNETES_SERVICE_HOST is not set"),
        (KubeConfig(Path("/nowhere/config")), "kubeconfig /nowhere/config cannot be used"),
        (Explicit("http://127.0.0.1:1", Path("/nowhere/ca"), Path("/nowhere/token")), "no file /nowhere/ca"),
    ],
)
async def test_what_is_missing_is_named_and_may_come_later(
    access: InCluster | KubeConfig | Explicit, message: str, monkeypatch: Any
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    api = KubeApi(access)
    with pytest.raises(UnreachableError, match=message):
        await api.get(PATH)
    await api.close()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"<html>proxy</html>\n", UnavailableError),
        (b'{"type": "ADDED"}\n', UnavailableError),
        (b'{"type": "ADDED", "object": 3}\n', UnavailableError),
        (b"[]\n", UnavailableError),
        (b'{"type": "ERROR", "object": {"code": 500, "message": "etcd is gone"}}\n', UnavailableError),
        (b'{"type": "ERROR", "object": {"code": "odd"}}\n', UnavailableError),
        (b'{"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}\n', GoneError),
    ],
)
async def test_a_watch_says_what_was_no_event(
    api: KubeApi, server: ApiServer, line: bytes, error: type[KubeError]
) -> None:
    server.raw.append(line)
    with pytest.raises(error):
        await anext(api.watch(PATH, resource_version="10", idle_s=2.0))


async def test_an_event_without_end_is_refused(api: KubeApi, server: ApiServer, monkeypatch: Any) -> None:
    monkeypatch.setattr("lb.kube.api.MOST_EVENT_BYTES", 1000)
    server.raw.append(b"x" * 2000)
    with pytest.raises(UnavailableError, match="more than 1000 bytes"):
        await anext(api.watch(PATH, resource_version="10", idle_s=2.0))
