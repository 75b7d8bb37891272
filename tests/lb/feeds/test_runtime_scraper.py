"""Readings from real servers: what is told, what is missing, what is refused, when it is given up."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web

from tests.lb.feeds.replica import FAST, METRICS, FakeReplica, feeding, hang, vllm


async def test_a_reading_is_handed_on() -> None:
    replica = vllm()
    async with feeding(replica) as (sink, feeds):
        load = await sink.until_load()
        assert (load.running, load.waiting, load.kv_usage_ratio) == (3, 1, 0.5)
        conformance = feeds.conformance(replica.endpoint().id)
        assert conformance is not None
        assert conformance.load_path == "/metrics"
        assert {"running", "waiting", "kv_usage_ratio"} <= conformance.present
        assert conformance.missing == ()
        assert feeds.counts.readings >= 1


async def test_one_request_at_a_time() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.15)
        return web.Response(text=METRICS)

    replica = vllm(metrics=slow)
    settings = FAST.model_copy(update={"interval_s": 60.0, "scrape_interval_s": 0.01})
    async with feeding(replica, settings=settings) as (sink, _):
        await sink.until(lambda: len(sink.loads) >= 2)
        replica.most_at_once = 0
        started = asyncio.get_running_loop().time()
        await sink.until(lambda: len(sink.loads) >= 4)
        took_s = asyncio.get_running_loop().time() - started
    assert replica.most_at_once == 1
    # A slow replica is left alone for twice the time that a reading takes.
    assert took_s > 2 * 0.3


async def test_every_miss_of_a_silent_replica_is_told_until_it_speaks_again() -> None:
    replica = vllm()
    async with feeding(replica) as (sink, feeds):
        await sink.until_load()
        replica.answers["/metrics"] = hang
        await sink.until(lambda: len(sink.failures) >= 4)
        assert {replica_id for replica_id, _ in sink.failures} == {replica.endpoint().id}
        assert [reason for _, reason in sink.failures[:3]] == ["/metrics: timed out after 0.3 s"] * 3
        # From the third on the engine's other sources are tried as well.
        assert "404 on /load" in sink.failures[3][1]
        assert feeds.counts.failed["vllm"] >= 4
        replica.answers["/metrics"] = METRICS.replace("running 3", "running 9")
        await sink.until_load(lambda load: load.running == 9)


async def test_a_missed_reading_does_not_change_the_source() -> None:
    answers = iter([METRICS, 500, METRICS, 500, 500] + [METRICS] * 1000)
    count = 0

    async def metrics(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        answer = next(answers)
        return web.Response(status=answer) if isinstance(answer, int) else web.Response(text=answer)

    replica = vllm(metrics=metrics, load={"server_load": 77})
    async with feeding(replica) as (sink, _):
        await sink.until(lambda: count >= 7 and len(sink.loads) >= 4)
    assert [reason for _, reason in sink.failures] == ["500 on /metrics"] * 3
    assert {load.running for _, load in sink.loads} == {3}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("<html>Sign in</html>", "signal missing"),
        (METRICS.replace("vllm:", "vllm_"), "signal missing"),
        ((404, "nothing"), "404 on /metrics"),
        ((401, "who are you"), "401 on /metrics"),
        ("vllm:num_requests_running NaN\n", "no usable number"),
    ],
)
async def test_what_cannot_be_read_is_said(answer: object, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    replica = vllm(metrics=answer)
    async with feeding(replica) as (sink, feeds):
        await sink.until(lambda: len(sink.failures) >= 4)
        assert reason in sink.failures[0][1]
        conformance = feeds.conformance(replica.endpoint().id)
        assert conformance is not None
        assert conformance.load_path is None
        assert reason in conformance.note
    assert sink.loads == []
    assert caplog.text.count("its load is inferred from our own requests") == 1


async def test_a_renamed_metric_is_said_once_and_the_rest_is_read(caplog: pytest.LogCaptureFixture) -> None:
    replica = vllm(metrics=METRICS.replace("num_requests_waiting", "num_waiting"))
    with caplog.at_level(logging.WARNING):
        async with feeding(replica) as (sink, feeds):
            await sink.until(lambda: len(sink.loads) >= 4)
            assert feeds.counts.missing["vllm", "vllm:num_requests_waiting"] >= 4
    assert {load.waiting for _, load in sink.loads} == {None}
    assert {load.running for _, load in sink.loads} == {3}
    assert caplog.text.count("signal missing, no vllm:num_requests_waiting on /metrics") == 1


async def test_numbers_that_cannot_be_right_are_dropped_and_counted() -> None:
    async with feeding(vllm(metrics=METRICS.replace("running 3", "running -1"))) as (sink, feeds):
        await sink.until(lambda: len(sink.loads) >= 2)
        assert feeds.counts.dropped["vllm", "running"] >= 2
    assert {load.running for _, load in sink.loads} == {None}


async def test_ten_megabytes_are_read_as_far_as_the_cap() -> None:
    huge = METRICS + "".join(f'other{{i="{i}"}} 1\n' for i in range(700_000))
    assert len(huge) > 10_000_000
    settings = FAST.model_copy(update={"timeout_s": 5.0})
    async with feeding(vllm(metrics=huge), settings=settings) as (sink, _):
        assert (await sink.until_load()).running == 3


async def test_the_second_source_serves_where_the_first_is_off() -> None:
    replica = FakeReplica(
        {
            "/v1/models": {"data": [{"id": "m", "owned_by": "llamacpp"}]},
            "/health": 200,
            "/metrics": (501, "not supported"),
            "/props": {"total_slots": 2},
            "/slots": [
                {"n_ctx": 100, "is_processing": True, "n_prompt_tokens": 50},
                {"n_ctx": 100, "is_processing": False},
            ],
        }
    )
    async with feeding(replica) as (sink, feeds):
        load = await sink.until_load()
        assert (load.running, load.max_running, load.kv_usage_ratio) == (1, 2, 0.25)
        conformance = feeds.conformance(replica.endpoint().id)
        assert conformance is not None
        assert (conformance.load_path, conformance.inferred) == ("/slots", {"kv_usage_ratio"})


async def test_metrics_elsewhere_are_read_there_and_get_no_key() -> None:
    metrics = FakeReplica({"/m": METRICS})
    await metrics.start()
    replica = vllm(metrics=404)
    url = f"http://127.0.0.1:{metrics.port}/m"
    async with feeding(replica, metrics_url=url, authorization="Bearer s3cret") as (sink, _):
        assert (await sink.until_load()).running == 3
    assert metrics.authorizations == {"/m": None}
    assert "/metrics" not in replica.seen
    await metrics.stop()


async def test_an_unknown_server_with_known_metrics_is_read() -> None:
    metrics = FakeReplica({"/m": METRICS})
    await metrics.start()
    async with feeding(FakeReplica(), metrics_url=f"http://127.0.0.1:{metrics.port}/m") as (sink, _feeds):
        assert (await sink.until_load()).running == 3
    await metrics.stop()


async def test_a_server_that_tells_nothing_is_not_asked_again_and_again() -> None:
    replica = FakeReplica({"/health": 200})
    async with feeding(replica) as (sink, _feeds):
        await sink.until(lambda: len(sink.probes) >= 10)
        assert sink.loads == []
        assert {reason for _, reason in sink.failures} == {"this runtime tells nothing of its load"}
        # Each try to recognise it asks both once.
        assert replica.seen.count("/metrics") <= replica.seen.count("/info")


async def test_a_restarted_replica_is_read_at_once() -> None:
    replica = vllm()
    settings = FAST.model_copy(update={"scrape_interval_s": 0.05})
    async with feeding(replica, settings=settings) as (sink, _):
        await sink.until_load()
        await replica.stop()
        await sink.until(lambda: bool(sink.failures))
        await asyncio.sleep(1.0)  # long enough for the pauses between attempts to have grown to seconds
        replica.answers["/metrics"] = METRICS.replace("running 3", "running 8")
        await replica.start()
        started = asyncio.get_running_loop().time()
        await sink.until_load(lambda load: load.running == 8)
        assert asyncio.get_running_loop().time() - started < 1.0
