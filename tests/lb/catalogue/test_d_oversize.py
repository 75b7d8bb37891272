"""Group D: what is too large or too many."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client import CollectorRegistry

from lb.errors import Reason
from lb.metrics import LbMetrics
from lb.proxy.observer import RequestRecord
from tests.lb.catalogue.client import chat, get, post
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.rows import refused, resident_bytes
from tests.lb.catalogue.upstream import STREAM_HEAD, Connection, reply, stream
from tests.lb.catalogue.wire import Request
from tests.lb.catalogue.world import eventually


def request_line_of(size: int) -> bytes:
    """A GET whose request line has that many bytes, its line end not counted."""
    line = b"GET /v1/models?%b HTTP/1.1"
    return (line % (b"x" * (size - len(line) + 2))) + b"\r\nHost: a\r\n\r\n"


async def test_d01_a_request_line_beyond_8_kib_is_414(make_world: MakeWorld) -> None:
    world = await make_world()
    assert (await world.ask(request_line_of(8190))).status == 200
    await refused(world, request_line_of(8193), (414,))
    assert world.recorder.reasons == [Reason.URI_TOO_LONG]


async def test_d01_a_request_line_without_end_is_414(make_world: MakeWorld) -> None:
    world = await make_world()
    await refused(world, b"GET /" + b"x" * 20_000, (414,))


@pytest.mark.parametrize("name", ["X-Long", "Content-Type", "Authorization", "X-Forwarded-For", "Cookie"])
async def test_d02_a_header_beyond_8_kib_is_431(make_world: MakeWorld, name: str) -> None:
    world = await make_world()
    assert (await world.ask(chat(headers="X-Long: " + "v" * 8000 + "\r\n"))).status == 200
    world.upstreams[0].connections.clear()
    await refused(world, chat(headers=f"{name}: " + "v" * 8193 + "\r\n"), (431,))


async def test_d03_101_headers_are_431(make_world: MakeWorld) -> None:
    world = await make_world()
    assert (await world.ask(chat(headers="".join(f"X-{n}: v\r\n" for n in range(97))))).status == 200
    world.upstreams[0].connections.clear()
    await refused(world, chat(headers="".join(f"X-{n}: v\r\n" for n in range(98))), (431,))


async def test_d04_a_head_beyond_32_kib_is_431(make_world: MakeWorld) -> None:
    world = await make_world()
    await refused(world, chat(headers="".join(f"X-{n}: " + "v" * 4000 + "\r\n" for n in range(9))), (431,))
    await refused(world, get("/v1/models", "X-Endless: " + "v" * 40_000), (431,))


async def test_d05_a_body_that_says_it_is_too_large_is_413_before_it_is_read(make_world: MakeWorld) -> None:
    world = await make_world()
    client = await world.client()
    await client.send(post(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % ((16 << 20) + 1)))
    response = await client.response()
    assert response is not None
    assert response.status == 413
    assert json.loads(response.body)["error"]["message"]
    assert not world.upstreams[0].connections
    assert world.recorder.reasons == [Reason.BODY_TOO_LARGE]


@pytest.mark.parametrize("buffered", [True, False])
async def test_d06_a_chunked_body_is_413_at_the_limit(make_world: MakeWorld, buffered: bool) -> None:
    world = await make_world(limits={"body_bytes": 300_000, "buffer_bytes": 1 << 20 if buffered else 4096})
    client = await world.client()
    head = chat().partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    uploading = asyncio.create_task(client.send(head + b'18\r\n{"model": "m", "text": "\r\n' + piece * 40))
    response = await client.response()
    assert response is not None
    assert response.status == 413
    assert response.close
    await client.ended()
    await asyncio.gather(uploading, return_exceptions=True)
    assert len(world.upstreams[0].requests) == 0, "a cut body reached a replica as a whole request"
    await eventually(lambda: world.upstreams[0].open_connections == 0)


async def test_d07_a_promised_gigabyte_allocates_nothing(make_world: MakeWorld) -> None:
    world = await make_world(limits={"body_bytes": 1 << 30}, timeouts={"body_s": 0.4})
    before = resident_bytes()
    clients = [await world.client() for _ in range(20)]
    for client in clients:
        await client.send(post(b"").replace(b"Content-Length: 0", b"Content-Length: 999999999"))
    await asyncio.sleep(0.2)
    assert resident_bytes() - before < 10_000_000
    for client in clients:
        response = await client.response()
        assert response is not None
        assert response.status == 408


LARGE_HEADS = {
    "one header of 70 kB": b"X-A: " + b"v" * 70_000 + b"\r\n",
    "many of 70 kB together": b"".join(b"X-%d: %b\r\n" % (n, b"v" * 1000) for n in range(70)),
    "257 headers": b"".join(b"X-%d: v\r\n" % n for n in range(257)),
    "without end": b"X-A: " + b"v" * 1_000_000,
}


@pytest.mark.parametrize("kind", LARGE_HEADS)
async def test_d08_an_answer_with_too_large_a_head_is_502(make_world: MakeWorld, kind: str) -> None:
    world = await make_world()

    async def wordy(connection: Connection, request: Request) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\n" + LARGE_HEADS[kind] + b"Content-Length: 2\r\n\r\nok")
        await connection.gone()

    world.upstreams[0].script = wordy
    assert (await world.ask(chat())).status == 502
    await eventually(lambda: world.upstreams[0].open_connections == 0)


async def test_d08_a_head_within_the_limits_passes(make_world: MakeWorld) -> None:
    world = await make_world()
    headers = b"".join(b"X-%d: %b\r\n" % (n, b"v" * 200) for n in range(240))

    async def wordy(connection: Connection, request: Request) -> None:
        await connection.send(reply(headers=headers))

    world.upstreams[0].script = wordy
    response = await world.ask(chat())
    assert response.status == 200
    assert response.get("x-239") == "v" * 200


async def test_d09_an_event_of_64_mib_is_streamed_and_never_held(make_world: MakeWorld) -> None:
    world = await make_world()
    size, piece = 64 << 20, b"x" * (1 << 20)

    async def huge(connection: Connection, request: Request) -> None:
        await connection.send(STREAM_HEAD + b"%x\r\ndata: " % (size + 8))
        for _ in range(size // len(piece)):
            await connection.send(piece)
        await connection.send(b"\n\n\r\n" + stream(0)[len(STREAM_HEAD) :])

    world.upstreams[0].script = huge
    client = await world.client()
    before = resident_bytes()
    await client.send(chat(stream=True))
    received, most, tail = 0, 0, b""
    while b"[DONE]" not in tail:
        data = await client.receive(1 << 20, timeout_s=20)
        assert data
        received += len(data)
        tail = (tail + data)[-200:]
        most = max(most, resident_bytes() - before)
    assert received > size
    assert most < 20_000_000


class _Into(list[RequestRecord]):
    """Hands records on instead of keeping them."""

    def __init__(self, metrics: LbMetrics) -> None:
        super().__init__()
        self._metrics = metrics

    def append(self, record: RequestRecord) -> None:
        self._metrics.finished(record)


async def test_d10_names_that_clients_invent_do_not_grow_series_or_memory(make_world: MakeWorld) -> None:
    world = await make_world()
    metrics = LbMetrics(CollectorRegistry(), version="1", now=world.gateway.now)
    metrics.watch_gateway(world.gateway)
    client = await world.client()

    async def wave(start: int) -> int:
        for number in range(start, start + 1500, 50):
            names = [f"invented-{n}-{'x' * 50}" for n in range(number, number + 50)]
            requests = [chat(model=name, headers=f"X-Session-Id: s{name}\r\n") for name in names]
            await client.send(b"".join(requests[:30]) + b"".join(get(f"/nowhere/{name}") for name in names[:1]))
            for _ in range(30):
                response = await client.response()
                assert response is not None
                assert response.status in (200, 404), response.body
            answer = await client.response()
            assert answer is None or answer.status == 404
            await _reconnect()
        return len(await metrics.exposition())

    async def _reconnect() -> None:
        nonlocal client
        client.close()
        client = await world.client()

    world.recorder.records = _Into(metrics)
    first = await wave(0)
    before = resident_bytes()
    second = await wave(100_000)
    assert second < first + 60_000
    assert len(metrics.requests.by_label) <= 102
    assert len(world.gateway.balancer.demand(world.gateway.now()).models) <= 1100
    assert resident_bytes() - before < 8_000_000


async def test_d11_a_user_of_a_megabyte_is_bounded(make_world: MakeWorld) -> None:
    world = await make_world()
    body = {"model": "m", "messages": [], "user": "u" * 1_000_000, "prompt_cache_key": "k" * 1_000_000}
    before = resident_bytes()
    for number in range(10):
        body["user"] = str(number) * 1_000_000
        response = await world.ask(post(json.dumps(body).encode()))
        assert response.status == 200
        world.upstreams[0].requests.clear()
    for connection in world.upstreams[0].connections:
        connection.received = b""
    assert resident_bytes() - before < 60_000_000
    assert world.view().sessions <= 10


async def test_d12_unique_prompts_do_not_grow_the_prefix_index(make_world: MakeWorld) -> None:
    world = await make_world(replicas=2, routing={"prefix_index_blocks": 1000})
    client = await world.client()
    for number in range(300):
        await client.send(chat(text=f"{number // 2:06d} " * 5200))  # 36 kB, some 17 blocks, twice
        response = await client.response()
        assert response is not None
        assert response.status == 200
    assert 0 < world.view().prefix_blocks <= 1000
