"""vLLM behind the balancer. One server serves most tests, as each start takes a minute or two."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.runtimes.balancer import Balancer, balancing
from tests.runtimes.chat import CHAT, chat, dismissed, strangers, stream_whole
from tests.runtimes.processes import Server, eventually
from tests.runtimes.servers import MODEL, llamacpp, vllm
from tests.runtimes.streams import read_stream

NEEDS = ("vllm", "llamacpp")
START_S = 280.0
"""Imports alone take half a minute on an idle core."""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with vllm(tmp_path_factory.mktemp("vllm")) as started:
        asyncio.run(started.answers("/health", within_s=START_S))
        yield started


async def running(server: Server) -> float:
    """What it says itself, without the balancer."""
    async with aiohttp.ClientSession() as session, session.get(server.url + "/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith("vllm:num_requests_running{"):
                return float(line.split()[-1])
    raise AssertionError("no vllm:num_requests_running")


async def test_unary_stream_and_usage(server: Server, tmp_path: Path) -> None:
    async with balancing(tmp_path, server) as balancer:
        await balancer.until_up(server, runtime="vllm")
        status, body = await balancer.post(CHAT, chat(8))
        assert status == 200
        assert json.loads(body)["usage"]["completion_tokens"] == 8
        stream = await stream_whole(balancer, 50)
        assert stream.clean
        assert stream.events[-1]["usage"]["completion_tokens"] == 50
        assert (await balancer.replica(server))["models"] == [MODEL]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_frees_it(server: Server, tmp_path: Path, streamed: bool) -> None:
    async with balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        if streamed:
            async with balancer.open(CHAT, chat(3500, stream=True)) as response:
                await read_stream(response, events=5)
        else:
            leaving = asyncio.create_task(balancer.post(CHAT, chat(3500)))
            await eventually(lambda: _runs(server, 1), within_s=10.0, what="it runs")
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        left = asyncio.get_running_loop().time()
        await eventually(lambda: _runs(server, 0), within_s=5.0, what="it is free")
        assert asyncio.get_running_loop().time() - left < 2.0
        replica = await balancer.until(server, lambda one: one["in_flight"] == 0, "nothing in flight", within_s=2.0)
        # It notices, so nothing goes on behind our back.
        assert replica["abandoned"] == 0


async def _runs(server: Server, count: int) -> bool:
    return await running(server) == count


async def test_requests_beyond_its_batch_wait_here_and_all_are_answered(server: Server, tmp_path: Path) -> None:
    async with balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        asking = [asyncio.create_task(balancer.post(CHAT, chat(800))) for _ in range(12)]
        # It does not tell its slots: they are learned from requests that wait inside it while others run.
        await balancer.until(server, lambda one: one["running"] == 2 and one["waiting"] >= 1, "its queue is read")
        await balancer.until(server, lambda one: one["slots"] == 2, "its slots are learned")
        answers = await asyncio.gather(*asking)
        assert [status for status, _ in answers] == [200] * 12
        asking = [asyncio.create_task(balancer.post(CHAT, chat(400))) for _ in range(10)]

        async def waits() -> bool:
            return bool((await balancer.view())["queued"] >= 4)

        await eventually(waits, within_s=5.0, what="requests wait in the balancer")
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 10
        assert (await balancer.view())["open_tickets"] == 0


async def test_load_of_others_is_read_and_believed(server: Server, tmp_path: Path) -> None:
    async with llamacpp(tmp_path, "--metrics") as other, balancing(tmp_path, server, other) as balancer:
        await balancer.until_up(server, other)
        tasks = await strangers(server.url, 3500, 4)
        await balancer.until(server, lambda one: one["foreign"] >= 4, "load of others is counted")
        before = (await balancer.replica(server))["routed_total"]
        for _ in range(4):
            assert (await balancer.post(CHAT, chat(5)))[0] == 200
        assert (await balancer.replica(server))["routed_total"] == before
        await dismissed(tasks)
        await balancer.until(server, lambda one: one["foreign"] == 0, "and forgotten when it is gone")


async def test_an_idle_server_is_never_taken_for_busy(server: Server, tmp_path: Path) -> None:
    async with balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        for _ in range(12):
            status, _ = await balancer.post(CHAT, chat(2))
            assert status == 200
            await asyncio.sleep(0.3)
            assert (await balancer.replica(server))["foreign"] == 0


async def test_errors_of_clients_pass_through_and_eject_nothing(server: Server, tmp_path: Path) -> None:
    async with balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        for _ in range(8):
            status, body = await balancer.post(CHAT, b'{"model": "tiny", "messages": [')
            assert status == 400
            status, body = await balancer.post(CHAT, chat(100_000))
            assert status == 400
            assert b"error" in body
        replica = await balancer.replica(server)
        assert replica["consecutive_faults"] == 0
        assert (await balancer.post(CHAT, chat(2)))[0] == 200


async def test_it_starts_late_and_is_stopped_with_streams_running(server: Server, tmp_path: Path) -> None:
    """Its port refuses until all is loaded. Told to stop, it aborts its streams, or holds them open without a byte."""
    async with vllm(tmp_path) as late:
        lb = {
            # With the cap on both, two streams are on each, whichever is thought to be faster.
            "backends": [{"url": one.url, "max_in_flight": 2} for one in (server, late)],
            # How long silence may last is set as an impatient operator would.
            "timeouts": {"idle": "15s", "shutdown": "5s"},
        }
        async with balancing(tmp_path, server, late, lb=lb) as balancer:
            await _starts_late_and_is_stopped(server, late, balancer)


async def _starts_late_and_is_stopped(server: Server, late: Server, balancer: Balancer) -> None:
    await balancer.until_up(server)
    joining = await balancer.replica(late)
    assert joining["state"] not in ("ready", "warming")
    assert (await balancer.post(CHAT, chat(3)))[0] == 200
    await balancer.until(late, lambda one: one["state"] in ("ready", "warming"), "it is up", within_s=START_S)
    assert (await balancer.replica(late))["runtime"] == "vllm"
    streams = [asyncio.create_task(stream_whole(balancer, 3000)) for _ in range(4)]
    await eventually(lambda: _runs(late, 2), within_s=10.0, what="streams on the one that stops")
    late.signal(signal.SIGTERM)
    await balancer.until(late, lambda one: one["state"] not in ("ready", "warming"), "it is out", within_s=20.0)
    for _ in range(5):
        assert (await balancer.post(CHAT, chat(3)))[0] == 200
    ended = await asyncio.gather(*streams)
    assert sum(stream.clean for stream in ended) == 2
    for stream in ended:
        if not stream.clean:
            # Its `finish_reason: "abort"` with `[DONE]` is no end that an SDK may take for an answer.
            assert stream.error is not None or stream.broken or stream.finish_reason == "abort"
    assert (await balancer.view())["open_tickets"] == 0


async def test_healthy_while_dying(server: Server, tmp_path: Path) -> None:
    """With a shutdown timeout its health page says 200 while every new chat is answered with 500."""
    async with vllm(tmp_path, "--shutdown-timeout", "25") as dying, balancing(tmp_path, server, dying) as balancer:
        await balancer.until_up(server)
        await balancer.until(dying, lambda one: one["state"] in ("ready", "warming"), "it is up", within_s=START_S)
        long = asyncio.create_task(_direct(dying, 3500))
        await eventually(lambda: _runs(dying, 1), within_s=10.0, what="it has something to finish")
        dying.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        statuses = [await _chat(balancer) for _ in range(30)]
        assert statuses == [200] * 30
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)


async def _chat(balancer: Balancer) -> int:
    return (await balancer.post(CHAT, chat(2)))[0]


async def _direct(server: Server, tokens: int) -> None:
    async with aiohttp.ClientSession() as session, session.post(server.url + CHAT, json=chat(tokens, stream=True)) as r:
        async for _ in r.content.iter_any():
            pass


async def test_sigkill_with_streams_running(server: Server, tmp_path: Path) -> None:
    """The last test of this file: it ends the server that the others share."""
    async with llamacpp(tmp_path, "--metrics") as other, balancing(tmp_path, server, other) as balancer:
        await balancer.until_up(server, other)
        streams = [asyncio.create_task(stream_whole(balancer, 400)) for _ in range(4)]
        await eventually(lambda: _runs(server, 2), within_s=10.0, what="streams on the one that dies")
        server.signal(signal.SIGKILL)
        await server.ended(10)
        assert [await _chat(balancer) for _ in range(6)] == [200] * 6
        ended = await asyncio.gather(*streams)
        assert all(stream.clean or stream.error is not None or stream.broken for stream in ended)
        assert sum(stream.clean for stream in ended) >= 2
        assert (await balancer.view())["open_tickets"] == 0
