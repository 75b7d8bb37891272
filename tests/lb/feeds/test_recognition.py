"""A server that could not be recognised while it started is recognised when it is up, and its load is read."""

from __future__ import annotations

from aiohttp import web

from lb.feeds.prober import UNKNOWN_INTERVAL_S, unknown_pause_s
from lb.runtime import ProbeStatus
from tests.lb.feeds.replica import METRICS, MODELS, FakeReplica, Sink, feeding

READY, LOADING, FAILED = ProbeStatus.READY, ProbeStatus.LOADING, ProbeStatus.FAILED
BUSY = (503, '{"error":{"message":"Loading model","type":"unavailable_error","code":503}}')
STARTING = dict.fromkeys(["/health", "/v1/models", "/metrics"], BUSY)
UP = {"/v1/models": MODELS, "/health": 200, "/metrics": METRICS}


async def ends_as_vllm(sink: Sink) -> None:
    ready = await sink.until_probe(READY)
    assert ready.runtime == "vllm", "its first good probe already says what it is"
    assert ready.models == ("tiny",)
    load = await sink.until_load()
    assert (load.running, load.waiting) == (3, 1)


async def test_what_loads_behind_a_503_is_recognised_once_it_is_up() -> None:
    replica = FakeReplica(dict(STARTING))
    async with feeding(replica) as (sink, feeds):
        assert (await sink.until_probe(LOADING)).runtime == "generic"
        replica.answers = dict(UP)
        await ends_as_vllm(sink)
        conformance = feeds.conformance(replica.endpoint().id)
        assert conformance is not None
        assert (conformance.runtime, conformance.load_path) == ("vllm", "/metrics")


async def test_what_answers_500_while_it_starts_is_recognised_once_it_is_up() -> None:
    replica = FakeReplica(dict.fromkeys(["/health", "/v1/models", "/metrics"], 500))
    async with feeding(replica) as (sink, _):
        await sink.until(lambda: len(sink.probes) >= 3)
        assert {probe.status for _, probe in sink.probes} == {FAILED}
        replica.answers = dict(UP)
        await ends_as_vllm(sink)


async def test_what_refuses_then_loads_is_recognised_once_it_is_up() -> None:
    replica = FakeReplica(dict(STARTING))
    await replica.start()
    await replica.stop()
    async with feeding() as (sink, _):
        sink.set(replica.endpoint())
        await sink.until_probe(FAILED, "connection refused")
        await replica.start()
        await sink.until_probe(LOADING)
        replica.answers = dict(UP)
        await ends_as_vllm(sink)
    await replica.stop()


async def test_what_is_ready_before_its_api_is_there_is_recognised_by_a_later_try() -> None:
    """Its health answers first, as of servers that load in the background; there is no further step to READY."""
    replica = FakeReplica({"/health": 200})
    async with feeding(replica) as (sink, _):
        assert (await sink.until_probe(READY)).runtime == "generic"
        replica.answers = dict(UP)
        await sink.until(lambda: sink.probes[-1][1].runtime == "vllm", within_s=5.0)
        await sink.until_load()


async def test_a_server_that_stays_unknown_is_asked_ever_less_often() -> None:
    tries = 0

    async def count(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        return web.Response(status=404)

    replica = FakeReplica({"/health": 200, "/v2": count})
    async with feeding(replica) as (sink, _):
        await sink.until(lambda: len(sink.probes) >= 40)
    # 40 probes of 0.05 s are some 2 s: tries after 0, 1 interval, 2 more, 4 more ...
    assert 3 <= tries <= 8
    assert {probe.runtime for _, probe in sink.probes} == {"generic"}


def test_the_pause_between_tries_doubles_up_to_a_bound() -> None:
    pauses = [unknown_pause_s(tries, 1.0) for tries in range(1, 9)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert unknown_pause_s(10_000, 2.0) == UNKNOWN_INTERVAL_S
