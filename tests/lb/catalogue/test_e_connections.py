"""Group E, connections: replicas that cannot be reached, reset, hang or freeze."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time

import pytest

from lb.effects import Outcome
from lb.endpoint import Endpoint
from lb.feeds.board import Board
from lb.feeds.http import ProbeClient
from lb.feeds.prober import Prober
from tests.lb.catalogue.client import chat
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import (
    ask_many,
    hang,
    is_out,
)
from tests.lb.catalogue.upstream import (
    Connection,
    reply,
    well_behaved,
)
from tests.lb.catalogue.wire import Request
from tests.lb.catalogue.world import eventually


async def test_e01_a_refused_connection_goes_to_the_next_replica_unseen(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)
    await world.upstreams[0].stop_listening()
    responses = await ask_many(world, 40)
    assert {response.status for response in responses} == {200}
    assert is_out(world, world.upstreams[0]), "not marked after 40 requests"
    assert any(record.attempts == 2 for record in world.recorder.records)


async def test_e01_with_one_replica_a_refused_connection_is_502_at_once(make_world: MakeWorld) -> None:
    world = await make_world()
    await world.upstreams[0].stop_listening()
    started = time.monotonic()
    response = await world.ask(chat())
    assert response.status in (502, 503)
    assert time.monotonic() - started < 1.0


class _Blackhole:
    """A port that takes no more connections: its backlog is full, and Linux drops the SYNs."""

    def __init__(self) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(self.listener.getsockname())
            self.fillers.append(filler)

    def close(self) -> None:
        for sock in [self.listener, *self.fillers]:
            sock.close()


async def test_e02_a_replica_that_does_not_answer_a_syn_costs_the_connect_timeout(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"connect_s": 0.3})
    hole = _Blackhole()
    try:
        host, port = hole.listener.getsockname()
        dark = Endpoint(id="dark", host=host, port=port, models=("m",), runtime="vllm")
        world.gateway.set_source("row", [world.endpoint(world.upstreams[0]), dark])
        world.ready("dark")
        slowest = 0.0
        for _ in range(8):
            started = time.monotonic()
            assert (await world.ask(chat())).status == 200
            slowest = max(slowest, time.monotonic() - started)
        assert 0.25 < slowest < 1.5, "the dark replica was never tried"
    finally:
        hole.close()


async def test_e03_a_reset_before_any_byte_is_tried_elsewhere(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)

    async def slam(connection: Connection) -> bool:
        connection.reset()
        return True

    world.upstreams[0].on_connect = slam
    responses = await ask_many(world, 20)
    assert {response.status for response in responses} == {200}
    assert world.upstreams[0].connections, "never tried"


async def test_e03_a_reset_after_the_request_was_read_is_tried_elsewhere_or_said(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2)

    async def slam(connection: Connection, request: Request) -> None:
        connection.reset()

    world.upstreams[0].script = slam
    responses = await ask_many(world, 20)
    assert {response.status for response in responses} <= {200, 502}
    assert {response.status for response in responses[-10:]} == {200}


@pytest.mark.parametrize("streamed", [False, True])
async def test_e04_a_stale_pooled_connection_is_not_the_clients_problem(make_world: MakeWorld, streamed: bool) -> None:
    """The replica closes after each answer without saying so; requests cross the close at every possible moment."""
    world = await make_world()

    async def fickle(connection: Connection, request: Request) -> None:
        await well_behaved(connection, request)
        connection.close()

    world.upstreams[0].script = fickle
    client = await world.client()
    for number in range(100):
        await client.send(chat(stream=streamed))
        response = await client.response()
        assert response is not None
        assert response.status == 200, f"request {number}"
        assert response.complete
        await asyncio.sleep(0.0005 * (number % 4))


async def test_e04_a_reset_as_we_write_on_a_pooled_connection_is_not_either(make_world: MakeWorld) -> None:
    world = await make_world()

    async def once_each(connection: Connection, request: Request) -> None:
        if connection.requests == 1:
            await connection.send(reply())
        else:
            connection.reset()

    world.upstreams[0].script = once_each
    client = await world.client()
    for _ in range(50):
        await client.send(chat())
        response = await client.response()
        assert response is not None
        assert response.status == 200


async def test_e05_a_replica_that_never_answers_is_504_and_freed(make_world: MakeWorld) -> None:
    world = await make_world(timeouts={"first_byte_s": 0.3})
    world.upstreams[0].script = hang
    started = time.monotonic()
    response = await world.ask(chat())
    assert response.status == 504
    assert time.monotonic() - started < 1.5
    await eventually(lambda: world.upstreams[0].open_connections == 0)
    assert world.recorder.records[0].outcome is Outcome.FIRST_BYTE_TIMEOUT
    assert world.in_flight(world.upstreams[0]) == 0


async def test_e06_a_frozen_replica_is_out_within_three_probes(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, health={"interval_s": 0.2, "timeout_s": 0.2, "fall": 3})
    client = ProbeClient()
    await client.open()
    prober = Prober(world.gateway, client, Board(), world.settings.health, rng=random.Random(1))
    prober.start()
    await eventually(lambda: len(world.upstreams[0].requests) >= 2, what="probes")
    world.upstreams[0].script = hang  # SIGSTOP: the kernel accepts, nobody answers
    started = time.monotonic()
    await eventually(lambda: is_out(world, world.upstreams[0]), what="the frozen replica to be out")
    assert time.monotonic() - started < 3 * (0.2 + 0.2) + 1.0
    before = len(world.upstreams[0].bodies)
    assert {response.status for response in await ask_many(world, 10)} == {200}
    assert len(world.upstreams[0].bodies) == before
    await prober.stop()
    await client.close()


async def test_e05_what_waits_on_a_replica_that_hangs_is_answered_by_another(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, health={"progress_min_s": 0.5}, cost={"output_tokens": 16})
    for replica in world.gateway.balancer.replicas.values():
        for _ in range(10):
            replica.speed.learn_steps(1, 500, 0.002, 50)  # silence can be judged where the speed is known
    silent = world.upstreams[0]
    silent.script = hang
    streams = [asyncio.create_task(world.ask(chat(stream=True))) for _ in range(8)]
    await eventually(lambda: len(silent.requests) >= 2, what="requests on the silent replica")
    stuck = len(silent.requests)
    responses = await asyncio.gather(*streams)
    assert {response.status for response in responses} == {200}
    assert all(response.complete and b"[DONE]" in response.body for response in responses)
    assert is_out(world, silent)
    assert "no answer" in world.gateway.balancer.replicas[silent.url].reason
    assert sum(record.attempts == 2 for record in world.recorder.records) == stuck
    await eventually(lambda: silent.open_connections == 0, what="the hung replica to be freed")


async def test_e05_an_answer_in_one_piece_is_never_begun_twice_for_silence(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, health={"progress_min_s": 0.5}, cost={"output_tokens": 16})
    for replica in world.gateway.balancer.replicas.values():
        for _ in range(10):
            replica.speed.learn_steps(1, 500, 0.002, 50)

    async def slow(connection: Connection, request: Request) -> None:
        await asyncio.sleep(3.0)
        await connection.send(reply())

    for upstream in world.upstreams:
        upstream.script = slow
    assert (await world.ask(chat())).status == 200
    assert any(is_out(world, upstream) for upstream in world.upstreams), "the silence went unnoticed"
    assert sum(len(upstream.requests) for upstream in world.upstreams) == 1
