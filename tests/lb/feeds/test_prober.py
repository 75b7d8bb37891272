"""Probes of real servers: recognised, loading, ready, failing, back."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web

from lb.runtime import ProbeStatus
from tests.lb.feeds.replica import FAST, FakeReplica, feeding, hang, vllm

READY, LOADING, FAILED = ProbeStatus.READY, ProbeStatus.LOADING, ProbeStatus.FAILED


async def test_a_replica_is_recognised_and_listed_at_its_first_probe() -> None:
    async with feeding(vllm()) as (sink, _):
        await sink.until(lambda: bool(sink.probes))
    replica_id, first = sink.probes[0]
    assert replica_id == sink.endpoints_now[0].id
    assert (first.status, first.runtime, first.models) == (READY, "vllm", ("tiny",))
    assert first.latency_s is not None
    assert 0 < first.latency_s < 1


async def test_models_are_not_listed_with_every_probe() -> None:
    replica = vllm()
    async with feeding(replica) as (sink, _):
        await sink.until(lambda: len(sink.probes) >= 5)
    assert replica.seen.count("/health") >= 5
    assert replica.seen.count("/v1/models") == 2  # once to recognise it, once to list


async def test_llamacpp_is_known_while_it_loads() -> None:
    def answers(status: int, text: str) -> object:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, text=text, headers={"Server": "llama.cpp"})

        return answer

    loading = answers(503, '{"error":{"message":"Loading model","type":"unavailable_error","code":503}}')
    replica = FakeReplica(dict.fromkeys(["/health", "/v1/models", "/props"], loading))
    async with feeding(replica) as (sink, _):
        probe = await sink.until_probe(LOADING)
        assert probe.runtime == "llamacpp"
        assert probe.reason.startswith("503")
        assert "Loading model" in probe.reason
        replica.answers |= {
            "/health": answers(200, '{"status":"ok"}'),
            "/v1/models": answers(200, '{"data":[{"id":"a.gguf","aliases":["tiny"],"owned_by":"llamacpp"}]}'),
            "/props": answers(200, '{"total_slots":4}'),
            "/metrics": answers(200, "llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n"),
        }
        ready = await sink.until_probe(READY)
        assert ready.models == ("a.gguf", "tiny")
        load = await sink.until_load()
        assert (load.running, load.max_running) == (1, 4)


async def test_nobody_there_then_loading_then_ready() -> None:
    replica = vllm()
    await replica.start()
    port = replica.port
    await replica.stop()
    async with feeding(vllm()) as (sink, _):
        sink.set(replica.endpoint())
        await sink.until_probe(FAILED, "connection refused")
        replica.port = port
        await replica.start()
        ready = await sink.until_probe(READY, after=len(sink.probes))
        assert ready.runtime == "vllm"
        assert ready.models == ("tiny",)
    await replica.stop()


async def test_a_closed_port_is_seen_although_old_connections_are_served() -> None:
    """A runtime that was told to stop closes its listener and serves on; a pooled connection would say 200 for ever."""
    replica = vllm()
    async with feeding(replica) as (sink, _):
        await sink.until_probe(READY)
        await sink.until_load()
        await replica.close_port()
        await sink.until_probe(FAILED, "connection refused", after=len(sink.probes))
        # The same server still answers on the connection that readings use.
        seen = len(sink.loads)
        await sink.until(lambda: len(sink.loads) > seen + 1)


async def test_a_hang_fails_with_a_reason() -> None:
    async with feeding(vllm(health=hang)) as (sink, _):
        probe = await sink.until_probe(FAILED)
        assert probe.reason == "timed out after 0.3 s"


async def test_a_flapping_replica_is_reported_as_it_is() -> None:
    answers = iter([200, 500, 200, 500, 200, 500] + [200] * 1000)

    async def flap(request: web.Request) -> web.StreamResponse:
        return web.Response(status=next(answers), text="boom")

    async with feeding(vllm(health=flap)) as (sink, _):
        await sink.until(lambda: len(sink.probes) >= 7)
    assert [probe.status for _, probe in sink.probes[:7]] == [READY, FAILED] * 3 + [READY]
    assert sink.probes[1][1].reason == "500 boom"
    # After each failure it was recognised anew: another server may have taken its place.
    assert all(probe.runtime == "vllm" for _, probe in sink.probes[:7])


async def test_401_is_alive_and_never_a_failure() -> None:
    locked = FakeReplica(dict.fromkeys(["/v1/models", "/health", "/metrics", "/load"], 401))
    async with feeding(locked) as (sink, _):
        await sink.until(lambda: len(sink.probes) >= 3)
    assert {probe.status for _, probe in sink.probes} == {READY}
    assert "no key" in sink.probes[0][1].reason
    # Reading /metrics would empty TensorRT-LLM's, and with a closed door it cannot be told apart.
    assert "/metrics" not in locked.seen


async def test_the_key_is_sent_with_probes() -> None:
    replica = vllm()
    async with feeding(replica, authorization="Bearer s3cret") as (sink, feeds):
        await sink.until_load()
        assert replica.authorizations == dict.fromkeys(["/v1/models", "/health", "/metrics"], "Bearer s3cret")
        feeds.reconfigure(FAST, authorization="Bearer other")
        seen = len(sink.probes)
        await sink.until(lambda: len(sink.probes) > seen + 1)
        assert replica.authorizations["/health"] == "Bearer other"


async def test_an_unknown_server_is_generic() -> None:
    async with feeding(FakeReplica({"/v1/models": {"data": [{"id": "m"}]}})) as (sink, _):
        probe = await sink.until_probe(READY)
    assert (probe.runtime, probe.models) == ("generic", ("m",))
    assert "404" in probe.reason


async def test_a_declared_runtime_is_not_detected() -> None:
    replica = FakeReplica({"/health": 200})
    async with feeding(replica, runtime="tgi") as (sink, _):
        probe = await sink.until_probe(READY)
    assert probe.runtime == "tgi"
    assert replica.seen[0] == "/health"


async def test_a_runtime_that_does_not_exist_is_detected_instead(caplog: pytest.LogCaptureFixture) -> None:
    async with feeding(vllm(), runtime="vlm") as (sink, _):
        assert (await sink.until_probe(READY)).runtime == "vllm"
    assert "no runtime is called 'vlm'" in caplog.text


async def test_declared_models_stand_and_a_difference_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with feeding(vllm(), models=("other",)) as (sink, _):
            await sink.until(lambda: len(sink.probes) >= 5)
    assert all(probe.models is None for _, probe in sink.probes)
    assert caplog.text.count("declared to serve 'other', and lists 'tiny'") == 1


def triton(**states: int) -> FakeReplica:
    """By model: the status of its own readiness."""
    replica = FakeReplica({"/v2": {"name": "triton"}, "/v2/health/ready": 200})
    replica.answers["/v2/repository/index"] = [{"name": name} for name in states]
    for name, status in states.items():
        replica.answers[f"/v2/models/{name}/ready"] = status
    return replica


async def test_triton_is_ready_for_the_models_that_say_so() -> None:
    replica = triton(a=400, b=400)
    async with feeding(replica) as (sink, _):
        probe = await sink.until_probe(LOADING)
        assert probe.runtime == "triton"
        assert probe.reason.startswith("a: 400")
        replica.answers["/v2/models/b/ready"] = 200
        assert (await sink.until_probe(READY)).models == ("b",)
        replica.answers["/v2/models/a/ready"] = 200
        await sink.until(lambda: sink.probes[-1][1].models == ("a", "b"))


async def test_triton_with_a_closed_listing_is_taken_at_its_word() -> None:
    replica = FakeReplica({"/v2": {"name": "triton"}, "/v2/health/ready": 200, "/v2/repository/index": 403})
    async with feeding(replica) as (sink, _):
        probe = await sink.until_probe(READY)
    assert "its own word" in probe.reason


async def test_triton_is_asked_for_declared_models() -> None:
    replica = triton(a=200, b=200)
    replica.answers["/v2/models/mine/ready"] = 400
    async with feeding(replica, models=("mine",)) as (sink, _):
        assert (await sink.until_probe(LOADING)).reason.startswith("mine: 400")


async def test_another_server_behind_the_same_address_is_recognised() -> None:
    replica = vllm()
    async with feeding(replica) as (sink, feeds):
        await sink.until_load()
        replica.answers = {"/health": 500}
        await sink.until_probe(FAILED)
        replica.answers = {
            "/v1/models": {"data": [{"id": "m", "owned_by": "sglang"}]},
            "/health": 200,
            "/v1/loads": {"loads": [{"num_running_reqs": 7, "num_waiting_reqs": 2}]},
        }
        assert (await sink.until_probe(READY, after=len(sink.probes))).runtime == "sglang"
        await sink.until_load(lambda load: load.running == 7)
        conformance = feeds.conformance(replica.endpoint().id)
        assert conformance is not None
        assert (conformance.runtime, conformance.load_path) == ("sglang", "/v1/loads?include=core")


async def test_a_replica_that_left_is_not_asked_any_more() -> None:
    one, two = vllm(), vllm()
    async with feeding(one, two) as (sink, feeds):
        await sink.until(lambda: len({replica_id for replica_id, _ in sink.loads}) == 2)
        sink.set(two.endpoint())
        await asyncio.sleep(0.05)
        asked = len(one.seen)
        seen = len(sink.probes)
        await sink.until(lambda: len(sink.probes) > seen + 4)
        assert len(one.seen) == asked
        assert feeds.conformance(one.endpoint().id) is None
        assert feeds.conformance(two.endpoint().id) is not None


async def test_two_hundred_replicas_are_not_asked_at_once() -> None:
    replica = vllm()
    times: list[float] = []

    async def health(request: web.Request) -> web.StreamResponse:
        times.append(asyncio.get_running_loop().time())
        return web.Response()

    replica.answers["/health"] = health
    settings = FAST.model_copy(update={"interval_s": 1.0, "scrape_interval_s": 60.0, "timeout_s": 10.0})
    async with feeding(replica, settings=settings) as (sink, _):
        sink.set(*(replica.endpoint(id=f"r{i}", runtime="vllm") for i in range(200)))
        await sink.until(lambda: len({replica_id for replica_id, _ in sink.probes}) >= 200, within_s=20.0)
    first = sorted(times)[:200]
    spread_s = first[-1] - first[0]
    assert spread_s > 0.8
    # No tenth of the span holds more than three times its share.
    tenths = [
        sum(1 for t in first if first[0] + i * spread_s / 10 <= t < first[0] + (i + 1) * spread_s / 10)
        for i in range(10)
    ]
    assert max(tenths) <= 60
