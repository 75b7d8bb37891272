"""Time, disconnects, faults and the life of the process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoscaler.mock.errors import FaultError
from autoscaler.mock.fault import Fault, FaultKind, parse_fault
from autoscaler.sim.replica_model import ReplicaModel
from tests.autoscaler.mock.conftest import Wire, chat, request_bytes, until

LONG = chat(max_tokens=100_000, ignore_eos=True, stream=True)


async def test_time_passes_as_the_model_says_at_the_speed_asked_for(start: Any) -> None:
    wire = await start(speed=20.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    status, _ = await wire.post("/v1/chat/completions", chat(max_tokens=400, ignore_eos=True))
    model_s = (loop.time() - began) * 20.0
    alone_s = ReplicaModel().alone_s(2, 400)[1]
    assert status == 200
    # Never faster; slower by what a loaded machine takes (a quarter of a wall second here).
    assert alone_s <= model_s < alone_s + 5.0
    assert (await wire.state())["busy_s"] == pytest.approx(alone_s)


@pytest.mark.parametrize("streams", [True, False])
async def test_a_client_that_leaves_frees_its_slot_at_once(start: Any, streams: bool) -> None:
    wire = await start(replica=ReplicaModel(max_running=1))
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(request_bytes("/v1/chat/completions", {**LONG, "stream": streams}))
    if streams:
        await reader.readuntil(b"tok ")

    async def busy() -> bool:
        return bool((await wire.state())["in_flight"] == 1)

    async def idle() -> bool:
        state = await wire.state()
        return bool(state["in_flight"] == 0 and state["running"] == 0)

    await until(busy)
    writer.close()
    await until(idle)


async def test_pipelined_requests_are_answered_in_order(start: Any) -> None:
    wire = await start()
    raw = b"".join(
        request_bytes("/v1/completions", {"prompt": "p", "mock_output_tokens": tokens}, close=tokens == 1)
        for tokens in (30, 5, 1)
    )
    answers = (await wire.exchange(raw)).decode()
    assert [int(count) for count in re.findall(r'"completion_tokens":(\d+)', answers)] == [30, 5, 1]


async def test_a_full_batch_shows_as_waiting_requests(start: Any) -> None:
    wire = await start(replica=ReplicaModel(max_running=2))
    writers = []
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(request_bytes("/v1/chat/completions", LONG))
        writers.append(writer)

    async def queued() -> bool:
        page = (await wire.get("/metrics"))[1].decode()
        return 'num_requests_running{engine="0",model_name="mock-model"} 2.0' in page and (
            'num_requests_waiting{engine="0",model_name="mock-model"} 3.0' in page
        )

    await until(queued)
    assert json.loads((await wire.get("/load"))[1]) == {"server_load": 5}
    for writer in writers:
        writer.close()


async def fail(wire: Wire, **fault: Any) -> None:
    assert (await wire.post("/mock/fault", fault))[0] == 200


async def test_faults_of_a_request(start: Any) -> None:
    wire = await start()
    await fail(wire, kind="status", status=503, retry_after_s=2, count=1)
    answer = await wire.exchange(request_bytes("/v1/chat/completions", chat(max_tokens=2), close=True))
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 2\r\n" in answer
    assert (await wire.post("/v1/chat/completions", chat(max_tokens=2)))[0] == 200
    await fail(wire, kind="dying")
    assert (await wire.get("/health"))[0] == 200
    status, body = await wire.post("/v1/chat/completions", chat(max_tokens=2))
    assert (status, b"after shutdown" in body) == (500, True)
    await fail(wire, kind="loading")
    assert (await wire.get("/health"))[0] == 503
    await fail(wire, kind="close")
    assert await wire.exchange(request_bytes("/v1/chat/completions", chat())) == b""
    await fail(wire, kind="reset")
    with pytest.raises(ConnectionResetError):
        await wire.exchange(request_bytes("/v1/chat/completions", chat()))
    await fail(wire, kind="none")
    assert (await wire.post("/v1/chat/completions", chat(max_tokens=2)))[0] == 200


@pytest.mark.parametrize(
    ("kind", "ending"), [("cut_stream", b"\r\n"), ("truncate_stream", b"0\r\n\r\n"), ("silent_stream", None)]
)
async def test_faults_of_a_stream(start: Any, kind: str, ending: bytes | None) -> None:
    wire = await start()
    await fail(wire, kind=kind, tokens=8)
    raw = request_bytes("/v1/chat/completions", chat(stream=True, mock_output_tokens=50), close=True)
    if ending is None:
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(raw)
        seen = b""
        while seen.count(b"tok ") < 8:
            seen += await reader.read(65536)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        writer.close()
    else:
        seen = await wire.exchange(raw)
        assert seen.endswith(ending)
        assert seen.endswith(b"0\r\n\r\n") == (kind == "truncate_stream")
    assert seen.count(b"tok ") == 8
    assert b"[DONE]" not in seen


async def test_a_stream_is_reset_in_the_middle(start: Any) -> None:
    wire = await start()
    await fail(wire, kind="reset_stream", tokens=3)
    with pytest.raises(ConnectionResetError):
        await wire.exchange(request_bytes("/v1/chat/completions", chat(stream=True, mock_output_tokens=50)))


async def test_a_hung_runtime_answers_nothing_and_goes_on_where_it_stopped(start: Any) -> None:
    wire = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(request_bytes("/v1/chat/completions", chat(mock_output_tokens=200, stream=True), close=True))
    await reader.readuntil(b"tok ")
    await fail(wire, kind="hang")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.get("/health"), 0.1)
    stood = (await wire.state())["model_s"]
    assert (await wire.state())["model_s"] == stood
    await fail(wire, kind="none")
    assert b"[DONE]" in await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_a_stalled_engine_looks_healthy(start: Any) -> None:
    wire = await start()
    await fail(wire, kind="stall")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.post("/v1/chat/completions", chat()), 0.1)
    assert (await wire.get("/health"))[0] == 200


async def test_slow_and_cold_replicas_take_longer_steps(start: Any) -> None:
    wire = await start(warm_up_s=1000.0)
    await fail(wire, kind="slow", factor=2)
    await wire.post("/v1/chat/completions", chat(mock_output_tokens=10))
    assert (await wire.state())["busy_s"] == pytest.approx(ReplicaModel(slow_factor=6.0).alone_s(2, 10)[1])


@pytest.mark.parametrize("text", ["burning", "slow:factor=x", "status:status=42", "hang:colour=1"])
def test_a_fault_that_makes_no_sense_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(FaultError, match="fault: "):
        parse_fault(text)


def test_a_fault_in_words() -> None:
    assert parse_fault("status:status=500,count=3") == Fault(FaultKind.STATUS, status=500, count=3)


async def test_instant_mode_paces_streams_and_answers_the_rest_at_once(start: Any) -> None:
    wire = await start(instant=True, stream_interval_s=0.008)
    status, body = await wire.post("/v1/chat/completions", chat())
    assert (status, json.loads(body)["object"]) == (200, "chat.completion")
    began = asyncio.get_running_loop().time()
    status, body = await wire.post("/v1/chat/completions", chat(stream=True, max_tokens=20))
    assert asyncio.get_running_loop().time() - began >= 0.008 * 18
    assert body.count(b"tok ") == 20
    assert b"[DONE]" in body
    assert (await wire.state())["streams"] == 0


def spawn(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autoscaler", "mock-runtime", "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline().rpartition(":")[2])


async def test_sigterm_refuses_new_work_and_finishes_what_runs() -> None:
    process = spawn("--speed", "5")
    try:
        wire = Wire(await asyncio.to_thread(port_of, process))
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(request_bytes("/v1/chat/completions", chat(stream=True, mock_output_tokens=200)))
        await reader.readuntil(b"tok ")
        process.send_signal(signal.SIGTERM)
        rest = await asyncio.wait_for(reader.read(), 10)
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", wire.port)
        assert await asyncio.to_thread(process.wait, 5) == 0
        writer.close()
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


async def test_a_runtime_that_loads_says_so_and_then_serves(start: Any) -> None:
    wire = await start(start_up_s=10.0, start_up_refuses=False)
    assert (await wire.get("/v1/models"))[0] == 503

    async def up() -> bool:
        return bool((await wire.get("/health"))[0] == 200)

    await until(up)
