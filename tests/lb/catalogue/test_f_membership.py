"""Group F: replicas that come, go and flap. F06 to F09, which are about DNS, are in tests/lb/sources/test_dns.py."""

from __future__ import annotations

import asyncio
import time

import pytest

from lb.effects import Outcome
from lb.errors import Reason
from lb.runtime import ProbeResult, ProbeStatus
from tests.lb.catalogue.client import chat
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import ask_many, assert_cut_with_error, hang, is_out
from tests.lb.catalogue.upstream import STREAM_HEAD, Connection, Upstream, chunk, event, stream
from tests.lb.catalogue.wire import Request
from tests.lb.catalogue.world import World, eventually


def probe(world: World, upstream: Upstream, status: ProbeStatus) -> None:
    world.gateway.observe_probe(upstream.url, ProbeResult(status, "probe of the row", runtime="vllm"))


def slow_stream(gate: asyncio.Event):  # type: ignore[no-untyped-def]
    """A stream that goes on until the gate opens, then ends well."""

    async def script(connection: Connection, request: Request) -> None:
        await connection.send(STREAM_HEAD + chunk(event("first")))
        while not gate.is_set():
            await asyncio.sleep(0.01)
            await connection.send(chunk(event("more")))
        await connection.send(stream(0)[len(STREAM_HEAD) :])

    return script


async def test_f01_a_replica_that_flaps_does_not_swing_in_and_out(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, health={"fall": 3, "rise": 2})
    changes: list[str] = []
    world.gateway.subscribe(lambda change: changes.append(change.current))
    for _ in range(20):
        probe(world, world.upstreams[0], ProbeStatus.FAILED)
        probe(world, world.upstreams[0], ProbeStatus.READY)
    assert changes == []
    for _ in range(3):
        probe(world, world.upstreams[0], ProbeStatus.FAILED)
    assert is_out(world, world.upstreams[0])
    out_changes = len(changes)
    for _ in range(20):
        probe(world, world.upstreams[0], ProbeStatus.READY)
        probe(world, world.upstreams[0], ProbeStatus.FAILED)
    assert is_out(world, world.upstreams[0])
    assert len(changes) == out_changes
    assert {response.status for response in await ask_many(world, 5)} == {200}
    assert not world.upstreams[0].requests


async def test_f01_a_replica_that_returns_ramps_up(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, health={"warmup_s": 0.3})
    await asyncio.sleep(0.35)  # until the other one counts as warm
    for _ in range(3):
        probe(world, world.upstreams[0], ProbeStatus.FAILED)
    assert is_out(world, world.upstreams[0])
    for _ in range(4):
        probe(world, world.upstreams[0], ProbeStatus.READY)
    [back] = [replica for replica in world.view().replicas if replica.url == world.upstreams[0].url]
    assert back.warm_ratio < 1.0


async def test_f02_a_removed_replica_gets_no_new_work_and_finishes_what_it_has(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    gate = asyncio.Event()
    for upstream in world.upstreams:
        upstream.script = slow_stream(gate)
    clients = [await world.client() for _ in range(4)]
    for client in clients:
        await client.send(chat(stream=True))
    await eventually(lambda: all(len(upstream.requests) >= 1 for upstream in world.upstreams))
    leaving, staying = world.upstreams
    served = len(leaving.requests)
    world.gateway.set_source("row", [world.endpoint(staying)])
    await asyncio.sleep(0.1)
    late = await world.client()
    await late.send(chat(stream=True))
    await eventually(lambda: len(staying.requests) + served == 5)
    assert len(leaving.requests) == served
    gate.set()
    for client in [*clients, late]:
        response = await client.response()
        assert response is not None
        assert response.complete
        assert b"[DONE]" in response.body
    await eventually(lambda: leaving.url not in {replica.url for replica in world.view().replicas})
    await eventually(lambda: leaving.open_connections == 0)
    assert {record.outcome for record in world.recorder.records} == {Outcome.OK}


async def test_f03_a_drain_past_its_deadline_ends_the_stream_with_an_error(make_world: MakeWorld) -> None:
    world = await make_world()
    gate = asyncio.Event()
    world.upstreams[0].script = slow_stream(gate)
    client = await world.client()
    await client.send(chat(stream=True))
    await eventually(lambda: world.upstreams[0].requests)
    world.gateway.drain(world.upstreams[0].url, 0.3)
    started = time.monotonic()
    assert_cut_with_error(await client.response())
    assert 0.2 < time.monotonic() - started < 1.5
    [record] = world.recorder.records
    assert (record.outcome, record.reason) == (Outcome.ABORTED, Reason.DRAIN_DEADLINE)


async def test_f04_with_every_replica_out_the_answer_is_503_at_once(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    for upstream in world.upstreams:
        for _ in range(3):
            probe(world, upstream, ProbeStatus.FAILED)
    for _ in range(10):
        started = time.monotonic()
        response = await world.ask(chat())
        assert response.status == 503
        assert int(response.get("retry-after") or 0) >= 1
        assert time.monotonic() - started < 0.5
    assert world.view().queued == 0
    assert set(world.recorder.reasons) == {Reason.ALL_UNHEALTHY}


async def test_f04_in_panic_mode_health_is_ignored(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, health={"panic_ratio": 0.5})
    for upstream in world.upstreams:
        for _ in range(3):
            probe(world, upstream, ProbeStatus.FAILED)
    assert {response.status for response in await ask_many(world, 5)} == {200}


async def test_f05_with_no_replica_a_request_is_held_until_one_is_there(make_world: MakeWorld) -> None:
    world = await make_world(replicas=1, control=False, admission={"cold_wait_s": 5.0})
    [upstream] = world.upstreams
    world.gateway.set_source("row", [])
    await eventually(lambda: not world.view().replicas)
    client = await world.client()
    await client.send(chat())

    def held() -> int:
        demand = world.gateway.balancer.demand(world.gateway.now()).models.get("m")
        return demand.held if demand is not None else 0

    await eventually(lambda: held() == 1)
    world.gateway.set_source("row", [world.endpoint(upstream)])
    world.ready(upstream.url)
    response = await client.response()
    assert response is not None
    assert response.status == 200


async def test_f05_with_no_replica_the_wait_and_the_queue_are_bounded(make_world: MakeWorld) -> None:
    world = await make_world(replicas=0, control=False, admission={"cold_wait_s": 0.4, "queue_requests": 3})
    clients = [await world.client() for _ in range(5)]
    started = time.monotonic()
    for client in clients:
        await client.send(chat())
        await asyncio.sleep(0.01)
    statuses = []
    for client in clients:
        response = await client.response()
        assert response is not None
        assert int(response.get("retry-after") or 0) >= 1
        statuses.append(response.status)
    assert sorted(statuses) == [429, 429, 503, 503, 503]
    assert 0.3 < time.monotonic() - started < 2.0


async def test_f08_a_replaced_address_drains_the_old_and_adds_the_new(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    old, new = world.upstreams
    world.gateway.set_source("row", [world.endpoint(old, replica_id="pod-1")])
    world.ready("pod-1")
    await eventually(lambda: [r.url for r in world.view().replicas if r.id == "pod-1"] == [old.url])
    await ask_many(world, 3)
    world.gateway.set_source("row", [world.endpoint(new, replica_id="pod-2")])
    world.ready("pod-2")
    before = len(old.requests)
    assert {response.status for response in await ask_many(world, 5)} == {200}
    assert len(old.requests) == before


async def test_f10_an_address_that_is_listed_twice_is_one_replica(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    first, second = world.upstreams
    world.gateway.set_source("row", [world.endpoint(first), world.endpoint(first), world.endpoint(second)])
    world.gateway.set_source("also", [world.endpoint(first)])
    urls = [replica.url for replica in world.view().replicas]
    assert sorted(urls) == sorted(set(urls))
    assert urls.count(first.url) == 1


async def test_f11_another_pod_at_the_same_address_inherits_nothing(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, routing={"session_header": "x-session-id"})
    first, second = world.upstreams
    world.gateway.set_source(
        "row", [world.endpoint(first, replica_id="pod-a"), world.endpoint(second, replica_id="pod-b")]
    )
    for pod in ("pod-a", "pod-b"):
        world.ready(pod)
    for _ in range(6):
        assert (await world.ask(chat(text="a long shared beginning " * 400))).status == 200
    assert world.view().prefix_blocks > 0
    world.gateway.set_source(
        "row", [world.endpoint(first, replica_id="pod-c"), world.endpoint(second, replica_id="pod-d")]
    )
    for pod in ("pod-c", "pod-d"):
        world.ready(pod)
    await eventually(lambda: {"pod-a", "pod-b"}.isdisjoint(replica.id for replica in world.view().replicas))
    assert world.view().prefix_blocks == 0
    view = {replica.id: replica for replica in world.view().replicas}
    assert view["pod-c"].routed_total == view["pod-d"].routed_total == 0
    assert (await world.ask(chat(text="a long shared beginning " * 400))).status == 200


@pytest.mark.parametrize("change", ["drain and undrain", "remove and add"])
async def test_f02_a_replica_can_come_back(make_world: MakeWorld, change: str) -> None:
    world = await make_world(replicas=1)
    [upstream] = world.upstreams
    for _ in range(3):
        if change == "drain and undrain":
            world.gateway.drain(upstream.url)
            world.gateway.undrain(upstream.url)
        else:
            world.gateway.set_source("row", [])
            world.gateway.set_source("row", [world.endpoint(upstream)])
        world.ready(upstream.url)
        assert (await world.ask(chat())).status == 200


async def test_f12_a_source_that_says_nothing_changes_nothing(make_world: MakeWorld) -> None:
    """A lost watch pushes no set: the last good one stays, and active health goes on judging it."""
    world = await make_world(replicas=2)
    for _ in range(3):
        probe(world, world.upstreams[0], ProbeStatus.FAILED)
    assert {response.status for response in await ask_many(world, 5)} == {200}
    assert len(world.gateway.endpoints()) == 3
    world.upstreams[1].script = hang
