"""Group E, health: replicas that answer with errors, are overloaded, load, lie or answer nothing."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from lb.effects import Outcome
from lb.runtime import RuntimeLoad
from tests.lb.catalogue.client import chat
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    always,
    ask_many,
    hang,
    is_out,
)
from tests.lb.catalogue.upstream import (
    STREAM_HEAD,
    Connection,
    chunk,
    event,
    reply,
    stream,
)
from tests.lb.catalogue.wire import Request
from tests.lb.catalogue.world import eventually

ERROR_500 = reply(b'{"error": "CUDA error: an illegal memory access was encountered"}', "500 Internal Server Error")


async def test_e16_a_burst_of_500_from_one_replica_ejects_it(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    world.upstreams[0].script = always(ERROR_500)
    for _ in range(60):
        await world.ask(chat())
        if is_out(world, world.upstreams[0]):
            break
    assert is_out(world, world.upstreams[0])
    seen = len(world.upstreams[0].requests)
    assert seen <= 12
    assert {response.status for response in await ask_many(world, 10)} == {200}
    assert len(world.upstreams[0].requests) == seen


async def test_e16_at_most_half_of_a_pool_is_ejected(make_world: MakeWorld) -> None:
    world = await make_world(replicas=4)
    for upstream in world.upstreams[:3]:
        upstream.script = always(ERROR_500)
    for _ in range(100):
        await world.ask(chat())
        out = sum(is_out(world, upstream) for upstream in world.upstreams)
        assert out <= 2
    assert out == 2


async def test_e17_when_all_say_500_it_is_passed_on_and_not_multiplied(make_world: MakeWorld) -> None:
    world = await make_world(replicas=3)
    for upstream in world.upstreams:
        upstream.script = always(ERROR_500)
    responses = await ask_many(world, 40)
    passed = [response for response in responses if response.status == 500]
    assert len(passed) >= 20
    assert b"illegal memory access" in passed[0].body
    assert sum(len(upstream.requests) for upstream in world.upstreams) <= 40 * 2


BUSY = reply(
    b'{"error": "slow down"}', "429 Too Many Requests", b"Retry-After: 7\r\nContent-Type: application/json\r\n"
)


async def test_e18_a_429_is_tried_on_a_less_loaded_replica(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    world.upstreams[0].script = always(BUSY)
    assert {response.status for response in await ask_many(world, 20)} == {200}
    assert 1 <= len(world.upstreams[0].requests) <= 6, "it asked for a rest of 7 s"
    assert not is_out(world, world.upstreams[0])


async def test_e18_a_429_of_all_is_passed_on_with_its_header(make_world: MakeWorld) -> None:
    world = await make_world(admission={"queue": False})
    world.upstreams[0].script = always(BUSY)
    response = await world.ask(chat())
    assert response.status == 429
    assert response.get("retry-after") == "7"
    assert response.body == b'{"error": "slow down"}'


async def test_e18_retries_stay_within_the_budget(make_world: MakeWorld) -> None:
    world = await make_world(
        replicas=2, admission={"queue": False}, retries={"budget_ratio": 0.2, "budget_min_tokens": 0}
    )
    for upstream in world.upstreams:
        upstream.script = always(reply(b'{"error": "slow down"}', "429 Too Many Requests", b"Retry-After: 0\r\n"))
    for _ in range(50):
        assert (await world.ask(chat())).status in (429, 503)
    asked = sum(len(upstream.requests) for upstream in world.upstreams)
    assert asked <= 50 * 1.2 + 1


async def test_e19_a_503_while_loading_is_not_ready_and_not_failed(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    loading = reply(
        b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', "503 Service Unavailable"
    )
    world.upstreams[0].script = always(loading)
    assert {response.status for response in await ask_many(world, 12)} == {200}
    assert len(world.upstreams[0].requests) == 1
    assert world.state_of(world.upstreams[0]) in ("loading", "joining")


@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "400 Bad Request", "422 Unprocessable"]
)
async def test_e20_client_errors_are_passed_on_and_never_held_against_a_replica(
    make_world: MakeWorld, status: str
) -> None:
    world = await make_world(replicas=2)
    for upstream in world.upstreams:
        upstream.script = always(reply(b'{"error": "no"}', status))
    for response in await ask_many(world, 20):
        assert response.status == int(status[:3])
        assert response.body == b'{"error": "no"}'
    assert sum(len(upstream.requests) for upstream in world.upstreams) == 20
    assert not any(is_out(world, upstream) for upstream in world.upstreams)
    assert {record.outcome for record in world.recorder.records} == {Outcome.CLIENT_ERROR}


async def test_e24_a_replica_whose_health_page_lies_is_ejected_by_its_answers(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    dying = reply(b'{"error": {"message": "cannot schedule new futures after shutdown"}}', "500 Internal Server Error")
    world.upstreams[0].script = always(dying)
    statuses = []
    for _ in range(20):
        world.ready(world.upstreams[0].url)
        statuses.append((await world.ask(chat())).status)
    assert statuses.count(200) >= 17
    assert statuses[-10:] == [200] * 10
    assert len(world.upstreams[0].requests) <= 8


async def test_e25_our_own_count_wins_over_a_replica_that_says_it_is_idle(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    idle = RuntimeLoad(running=0, waiting=0, kv_usage_ratio=0.0)
    for upstream in world.upstreams:
        upstream.script = hang
    clients = []
    for _ in range(20):
        for upstream in world.upstreams:
            world.gateway.observe_load(upstream.url, idle)
        client = await world.client()
        await client.send(chat())
        clients.append(client)
        await eventually(lambda: sum(len(u.requests) for u in world.upstreams) == len(clients))
    counts = sorted(len(upstream.requests) for upstream in world.upstreams)
    assert counts[0] >= 8, f"herded: {counts}"
    for client in clients:
        client.close()


EMPTY = {
    "no event": STREAM_HEAD + b"0\r\n\r\n",
    "only done": STREAM_HEAD + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
    "stop without content": STREAM_HEAD + chunk(event(finish="stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
}


@pytest.mark.parametrize("kind", EMPTY)
async def test_e26_a_replica_that_answers_nothing_fast_does_not_draw_the_traffic(
    make_world: MakeWorld, kind: str
) -> None:
    world = await make_world(replicas=2)
    world.upstreams[0].script = always(EMPTY[kind])

    async def steady(connection: Connection, request: Request) -> None:
        await asyncio.sleep(0.01)
        await connection.send(stream(5))

    world.upstreams[1].script = steady
    for _ in range(60):
        with contextlib.suppress(AssertionError):
            await world.ask(chat(stream=True))
    assert len(world.upstreams[0].requests) <= 20, "a black hole drew the traffic"
