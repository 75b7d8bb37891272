"""llama.cpp's server behind the balancer."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import aiohttp

from tests.runtimes.balancer import balancing
from tests.runtimes.chat import CHAT, chat, dismissed, strangers, stream_whole
from tests.runtimes.processes import Server, eventually
from tests.runtimes.servers import MODEL, llamacpp
from tests.runtimes.streams import read_stream

NEEDS = ("llamacpp",)


async def slots_busy(server: Server) -> int:
    async with aiohttp.ClientSession() as session, session.get(server.url + "/slots") as response:
        return sum(slot["is_processing"] for slot in await response.json())


async def test_unary_stream_and_usage(tmp_path: Path) -> None:
    async with llamacpp(tmp_path, "--metrics") as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server, runtime="llamacpp")
        status, body = await balancer.post(CHAT, chat(8))
        assert status == 200
        answer = json.loads(body)
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 8
        stream = await stream_whole(balancer, 20)
        assert stream.clean
        assert stream.events[-1]["usage"]["completion_tokens"] == 20
        status, body = await balancer.post("/completion", {"prompt": "the tide", "n_predict": 5, "ignore_eos": True})
        assert status == 200
        assert json.loads(body)["tokens_predicted"] == 5
        replica = await balancer.replica(server)
        assert replica["slots"] == 2
        assert replica["models"] == [MODEL]


async def test_a_client_that_leaves_a_stream_frees_its_slot(tmp_path: Path) -> None:
    async with llamacpp(tmp_path, "--metrics") as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        async with balancer.open(CHAT, chat(3000, stream=True)) as response:
            await read_stream(response, events=5)
            assert await slots_busy(server) == 1
        loop = asyncio.get_running_loop()
        left = loop.time()
        await eventually(lambda: _free(server), within_s=2.0, what="the slot is free")
        assert loop.time() - left < 1.0
        await balancer.until(server, lambda one: one["in_flight"] == 0, "nothing in flight", within_s=2.0)


async def _free(server: Server) -> bool:
    return await slots_busy(server) == 0


async def test_work_that_outlives_its_client_keeps_counting(tmp_path: Path) -> None:
    async with (
        llamacpp(tmp_path, "--metrics", slots=1) as one,
        llamacpp(tmp_path, "--metrics", slots=1) as two,
        balancing(tmp_path, one, two) as balancer,
    ):
        await balancer.until_up(one, two)
        for _ in range(4):
            await balancer.post(CHAT, chat(20))
        leaving = asyncio.create_task(balancer.post(CHAT, chat(1500)))
        await asyncio.sleep(0.5)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        busy = one if await slots_busy(one) else two
        assert await slots_busy(busy) == 1
        replica = await balancer.until(busy, lambda r: r["in_flight"] == 0, "our request has ended", within_s=2.0)
        assert replica["abandoned"] == 1
        before = replica["routed_total"]
        for _ in range(3):
            status, _ = await balancer.post(CHAT, chat(10))
            assert status == 200
        # It went on all the while, and nothing was sent to wait behind it.
        assert await slots_busy(busy) == 1
        assert (await balancer.replica(busy))["routed_total"] == before


async def test_requests_beyond_the_slots_wait_here_and_all_are_answered(tmp_path: Path) -> None:
    async with llamacpp(tmp_path, "--metrics") as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        await balancer.until(server, lambda one: one["slots"] == 2, "slots read")
        asking = [asyncio.create_task(balancer.post(CHAT, chat(120))) for _ in range(10)]

        async def waits() -> bool:
            return bool((await balancer.view())["queued"] >= 4)

        await eventually(waits, within_s=5.0, what="requests wait in the balancer")
        # Late binding: what waits inside the runtime is little, whatever comes.
        replica = await balancer.until(server, lambda one: one["running"] == 2, "its own numbers are read")
        assert replica["in_flight"] <= 4
        assert (replica["waiting"] or 0) <= 2
        answers = await asyncio.gather(*asking)
        assert [status for status, _ in answers] == [200] * 10
        assert (await balancer.view())["open_tickets"] == 0


async def test_load_of_others_is_read_and_believed(tmp_path: Path) -> None:
    async with (
        llamacpp(tmp_path, "--metrics") as loaded,
        llamacpp(tmp_path) as idle,  # without --metrics: read from its slots
        balancing(tmp_path, loaded, idle) as balancer,
    ):
        await balancer.until_up(loaded, idle)
        others = await strangers(loaded.url, 4000, 3)
        replica = await balancer.until(loaded, lambda one: one["running"] == 2, "load of others is seen")
        assert replica["in_flight"] == 0
        await balancer.until(loaded, lambda one: one["foreign"] >= 2, "load of others is counted")
        await balancer.until(idle, lambda one: one["running"] == 0, "slots are read")
        before = (await balancer.replica(loaded))["routed_total"]
        for _ in range(6):
            status, _ = await balancer.post(CHAT, chat(10))
            assert status == 200
        assert (await balancer.replica(loaded))["routed_total"] == before
        await dismissed(others)


async def test_a_request_waits_while_the_model_loads(tmp_path: Path) -> None:
    async with llamacpp(tmp_path, "--metrics", "--load-mode", "none", model="large") as server:
        await server.answers("/health", within_s=20, status=503)
        async with balancing(tmp_path, server) as balancer:
            await balancer.until(server, lambda one: one["runtime"] == "llamacpp", "known while it loads", within_s=5)
            loading = await balancer.replica(server)
            assert loading["state"] not in ("ready", "warming", "ejected")
            assert loading["ejected_until_s"] is None
            status, body = await balancer.post(CHAT, chat(2))
            assert (status, json.loads(body)["usage"]["completion_tokens"]) == (200, 2)


async def test_sigterm_with_streams_running(tmp_path: Path) -> None:
    """It stops to generate, sends comments for half a minute, then cuts: silence that looks like life."""
    async with (
        llamacpp(tmp_path, "--metrics") as one,
        llamacpp(tmp_path, "--metrics") as two,
        balancing(tmp_path, one, two) as balancer,
    ):
        await balancer.until_up(one, two)
        streams = [asyncio.create_task(stream_whole(balancer, 700)) for _ in range(4)]

        async def both_busy() -> bool:
            return await slots_busy(one) == 2 and await slots_busy(two) == 2

        await eventually(both_busy, within_s=10.0, what="two streams on each")
        one.signal(signal.SIGTERM)
        await balancer.until(one, lambda r: r["state"] not in ("ready", "warming"), "it is out", within_s=10.0)
        for _ in range(5):
            status, _ = await balancer.post(CHAT, chat(3))
            assert status == 200
        ended = await asyncio.gather(*streams)
        whole = [stream for stream in ended if stream.clean]
        assert len(whole) == 2
        for stream in ended:
            if not stream.clean:
                # The client's SDK raises: an error event, or a transfer that breaks. Never a clean end.
                assert stream.error is not None or stream.broken
                assert not stream.done
        assert (await balancer.view())["open_tickets"] == 0


async def test_sigkill_with_streams_running_and_return(tmp_path: Path) -> None:
    async with (
        llamacpp(tmp_path, "--metrics") as one,
        llamacpp(tmp_path, "--metrics") as two,
        balancing(tmp_path, one, two) as balancer,
    ):
        await balancer.until_up(one, two)
        streams = [asyncio.create_task(stream_whole(balancer, 300)) for _ in range(4)]

        async def both_busy() -> bool:
            return await slots_busy(one) == 2 and await slots_busy(two) == 2

        await eventually(both_busy, within_s=10.0, what="two streams on each")
        one.signal(signal.SIGKILL)
        await one.ended(5)
        statuses = [(await balancer.post(CHAT, chat(3)))[0] for _ in range(8)]
        assert statuses == [200] * 8
        ended = await asyncio.gather(*streams)
        # Those on the other are whole; one that had brought no byte yet may have been tried again there.
        assert sum(stream.clean for stream in ended) >= 2
        assert all(stream.clean or stream.error is not None or stream.broken for stream in ended)
        one.restart()
        await balancer.until(one, lambda r: r["state"] in ("ready", "warming"), "it is back", within_s=30.0)
        routed = (await balancer.replica(one))["routed_total"]
        await asyncio.gather(*(balancer.post(CHAT, chat(20)) for _ in range(8)))
        assert (await balancer.replica(one))["routed_total"] > routed


async def test_idle_connections_that_it_closes_cost_nothing(tmp_path: Path) -> None:
    """It closes a connection after five idle seconds, and after every error."""
    async with llamacpp(tmp_path, "--metrics", model="small") as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        for pause_s in (0.0, 3.8, 4.2, 4.9, 5.05, 5.3):
            await asyncio.sleep(pause_s)
            status, _ = await balancer.post(CHAT, chat(2))
            assert status == 200, f"after {pause_s} s"
        for _ in range(10):
            status, body = await balancer.post(CHAT, b'{"messages": [')
            assert status == 400
            assert b"parse error" in body
            status, _ = await balancer.post(CHAT, chat(2))
            assert status == 200
        replica = await balancer.replica(server)
        assert replica["consecutive_faults"] == 0
        assert replica["state"] in ("ready", "warming")


async def test_too_long_a_prompt_is_the_clients_error(tmp_path: Path) -> None:
    async with llamacpp(tmp_path, "--metrics", model="small") as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        status, body = await balancer.post(CHAT, chat(2, text="the tide goes out. " * 4000))
        assert status == 400
        assert b"exceed" in body
        assert (await balancer.replica(server))["state"] in ("ready", "warming")
