"""Ollama behind the balancer: no metrics, an invisible queue."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.runtimes.balancer import Balancer, balancing
from tests.runtimes.cache import CACHE, executable
from tests.runtimes.processes import Server, eventually
from tests.runtimes.servers import MODEL, ollama

NEEDS = ("ollama", "llamacpp")
CHAT = "/api/chat"


@asynccontextmanager
async def started(tmp: Path) -> AsyncIterator[Server]:
    async with ollama(tmp) as server:
        await server.answers("/api/version", within_s=20)
        modelfile = tmp / "Modelfile"
        modelfile.write_text(
            f"FROM {CACHE / 'models' / 'useful.gguf'}\nPARAMETER num_ctx 4096\nPARAMETER num_thread 1\n"
        )
        await asyncio.to_thread(_create, server, modelfile)
        yield server


def _create(server: Server, modelfile: Path) -> None:
    subprocess.run(
        [executable("ollama"), "create", MODEL, "-f", modelfile],
        env={"OLLAMA_HOST": f"127.0.0.1:{server.port}", "HOME": str(modelfile.parent), "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        timeout=60,
    )


def chat(tokens: int, *, stream: bool = False) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "tell me of the sea"}],
        "stream": stream,
        # Made-up weights may end an answer at once; this makes the end improbable.
        "options": {"num_predict": tokens, "temperature": 2.0, "seed": 3},
    }


async def lines(balancer: Balancer, tokens: int) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a stream, and whether the transfer was whole."""
    raw, whole = b"", True
    try:
        async with balancer.open(CHAT, chat(tokens, stream=True)) as response:
            async for part in response.content.iter_any():
                raw += part
    except aiohttp.ClientError:
        whole = False
    return [json.loads(line) for line in raw.split(b"\n")[:-1]], whole


async def test_native_and_openai_surfaces(tmp_path: Path) -> None:
    async with started(tmp_path) as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server, runtime="ollama")
        status, body = await balancer.post(CHAT, chat(10))
        assert status == 200
        assert json.loads(body)["done"] is True
        found, whole = await lines(balancer, 10)
        assert whole
        assert found[-1]["done"] is True
        assert found[-1]["eval_count"] >= 1
        body_out = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
        status, body = await balancer.post("/v1/chat/completions", body_out)
        assert status == 200
        assert json.loads(body)["usage"]["completion_tokens"] >= 1
        replica = await balancer.replica(server)
        assert set(replica["models"]) == {MODEL, f"{MODEL}:latest"}
        # It tells nothing of its load: unknown is not zero.
        assert replica["running"] is None
        assert replica["waiting"] is None


async def test_a_client_that_leaves_frees_it(tmp_path: Path) -> None:
    async with started(tmp_path) as server, balancing(tmp_path, server) as balancer:
        await balancer.until_up(server)
        for _ in range(4):
            async with balancer.open(CHAT, chat(1000, stream=True)) as response:
                await response.content.readline()
        # Four that ran on would hold both slots for a minute.
        loop = asyncio.get_running_loop()
        begun = loop.time()
        status, _ = await balancer.post(CHAT, chat(5))
        assert status == 200
        assert loop.time() - begun < 15
        await balancer.until(server, lambda one: one["in_flight"] == 0, "nothing in flight", within_s=5.0)


async def test_a_hidden_queue_is_inferred_and_all_are_answered(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        await asyncio.gather(*(balancer.post(CHAT, chat(20)) for _ in range(4)))
        answers = await asyncio.gather(*(balancer.post(CHAT, chat(60)) for _ in range(16)))
        assert [status for status, _ in answers] == [200] * 16
        routed = [replica["routed_total"] for replica in await balancer.replicas()]
        assert min(routed) >= 5
        assert (await balancer.view())["open_tickets"] == 0


async def test_sigterm_cuts_streams_and_no_client_takes_that_for_an_end(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        await asyncio.gather(*(balancer.post(CHAT, chat(5)) for _ in range(4)))
        streams = [asyncio.create_task(lines(balancer, 400)) for _ in range(4)]

        async def both() -> bool:
            return all(replica["in_flight"] >= 1 for replica in await balancer.replicas())

        await eventually(both, within_s=10.0, what="streams on both")
        await asyncio.sleep(1)
        one.signal(signal.SIGTERM)
        for _ in range(6):
            assert (await balancer.post(CHAT, chat(3)))[0] == 200
        for found, whole in await asyncio.gather(*streams):
            ended = whole and found[-1].get("done") is True
            assert ended or not whole or "error" in found[-1]
        assert (await balancer.view())["open_tickets"] == 0


async def test_sigkill(tmp_path: Path) -> None:
    async with started(tmp_path) as one, started(tmp_path) as two, balancing(tmp_path, one, two) as balancer:
        await balancer.until_up(one, two)
        one.signal(signal.SIGKILL)
        assert [(await balancer.post(CHAT, chat(3)))[0] for _ in range(6)] == [200] * 6
