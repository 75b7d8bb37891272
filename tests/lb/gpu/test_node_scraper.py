"""Reading a peer: what is taken, what is refused, and what age does to it."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from lb.feeds.http import ProbeClient
from lb.feeds.node_scraper import NodeScraper, Peer, PeerState
from lb.settings import PeerSettings
from lb.wire import MAX_REPLICAS, ShareError, node_message, read_shares
from nvml.drivers.fake import FakeDriver
from nvml.sample import GpuState, NodeSnapshot
from nvml.sampler import Sampler
from nvml.settings import NvmlSettings
from nvml.wire import MAX_BYTES, encode


def snapshot(*lost: int) -> NodeSnapshot:
    """Two cards read at 50 s of the peer's clock."""
    driver = FakeDriver()
    for index in lost:
        driver.lose(index)
    return Sampler(driver, NvmlSettings(driver="fake"), clock=lambda: 50.0).step()


class Other:
    """The other node's admin API."""

    def __init__(self) -> None:
        self.body = encode(snapshot(), 50.0)
        self.status = 200
        self.delay_s = 0.0
        self.seen: list[str | None] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers.get("Authorization"))
        await asyncio.sleep(self.delay_s)
        return web.Response(body=self.body, status=self.status, content_type="application/json")


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    served = Other()
    app = web.Application()
    app.router.add_get("/v1/node", served.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


class Reader:
    def __init__(self, client: ProbeClient) -> None:
        self.now = 1000.0
        self.changes = 0
        self.scraper = NodeScraper(client, rng=random.Random(1), now=lambda: self.now, changed=self._count)

    def _count(self) -> None:
        self.changes += 1


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    async with ProbeClient() as client:
        made = Reader(client)
        yield made
        await made.scraper.stop()


async def until(check: Callable[[], bool], what: str) -> None:
    for _ in range(1000):
        if check():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"never: {what}")


def state_of(other: Other, token: str | None = None) -> PeerState:
    return PeerState(Peer(PeerSettings(url=other.url, stale_s=5.0), token and f"Bearer {token}"))


async def test_a_reading_is_as_old_as_the_peer_says_and_the_way_took(other: Other, reader: Reader) -> None:
    other.body = encode(snapshot(), 52.0)  # read two seconds before it was sent
    state = state_of(other, "tok")
    await reader.scraper.read(state)
    assert other.seen == ["Bearer tok"]
    node = state.believed(1000.0)
    assert node is not None
    assert [gpu.state for gpu in node.gpus] == [GpuState.OK, GpuState.OK]
    assert node.age_s(1001.0) == pytest.approx(3.0)
    assert (state.read_at, state.error, state.failures) == (1000.0, None, 0)


BAD: dict[str, Any] = {
    "not JSON": b"<html>",
    "a list": b"[]",
    "another version": b'{"version": 2, "age_s": 0}',
    "a negative age": b'{"version": 1, "age_s": -1}',
    "an age that is none": b'{"version": 1, "age_s": NaN}',
    "a card without a name": b'{"version": 1, "age_s": 0, "gpus": [{"age_s": 0}]}',
    "an unknown state": encode(snapshot(), 50.0).replace(b'"state":"ok"', b'"state":"superb"'),
    "too much": b'{"version": 1, "age_s": 0, "x": "' + b"x" * MAX_BYTES + b'"}',
    "too deep": b'{"version": 1, "age_s": 0, "replicas": ' + b"[" * 100_000,
    "negative sums": encode(snapshot(), 50.0)[:-1]
    + b',"replicas":[{"url":"u","in_flight":-1,"outstanding_tokens":0}]}',
    "replicas that are none": encode(snapshot(), 50.0)[:-1] + b',"replicas":{"a":1}}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
async def test_what_is_no_snapshot_is_refused_and_the_last_one_stays(
    other: Other, reader: Reader, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of(other)
    await reader.scraper.read(state)
    before = state.node
    other.body = body
    reader.now += 1
    with caplog.at_level(logging.WARNING):
        await reader.scraper.read(state)
        await reader.scraper.read(state)
    assert state.node is before
    assert state.error
    assert state.failures == 2
    assert len(caplog.records) == 1, "said once, not with every reading"
    assert len(caplog.text) < 1000


@pytest.mark.parametrize(
    ("status", "words"), [(401, "set `token`"), (403, "refuses us"), (404, "is it a Tidegate"), (500, "answered 500")]
)
async def test_a_refusal_says_what_would_be_right(other: Other, reader: Reader, status: int, words: str) -> None:
    other.status = status
    state = state_of(other)
    await reader.scraper.read(state)
    assert state.node is None
    assert words in str(state.error)


async def test_silence_makes_the_good_unknown_and_leaves_the_lost_lost(other: Other, reader: Reader) -> None:
    other.body = encode(snapshot(1), 50.0)
    state = state_of(other)
    await reader.scraper.read(state)
    other.status = 500
    for _ in range(10):
        reader.now += 1.0
        await reader.scraper.read(state)
    node = state.believed(reader.now)
    assert node is not None
    assert [gpu.state for gpu in node.gpus] == [GpuState.UNKNOWN, GpuState.LOST]
    other.status = 200
    other.body = encode(snapshot(), 50.0)
    await reader.scraper.read(state)
    back = state.believed(reader.now)
    assert back is not None
    assert [gpu.state for gpu in back.gpus] == [GpuState.OK, GpuState.OK]


async def test_a_peer_that_hangs_is_given_up_and_does_not_hold_up_the_others(
    other: Other, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lb.feeds.node_scraper._TIMEOUT_S", 0.2)
    other.delay_s = 5.0
    state = state_of(other)
    await reader.scraper.read(state)
    assert state.error == "timed out after 0.2 s"


async def test_peers_are_followed_over_reloads(other: Other, reader: Reader) -> None:
    peer = Peer(PeerSettings(url=other.url, interval_s=0.1))
    gone = Peer(PeerSettings(url="http://127.0.0.1:9", interval_s=0.1))
    reader.scraper.follow([peer, gone])
    answers, refuses = reader.scraper.states
    await until(lambda: answers.node is not None and refuses.error == "connection refused", "both were asked")
    reader.scraper.follow([replace(peer, authorization="Bearer new")])
    (state,) = reader.scraper.states
    assert state.node is not None, "what was read stays"
    await until(lambda: other.seen[-1] == "Bearer new", "asked with the new token")
    reader.scraper.follow([])
    assert reader.scraper.states == ()
    assert reader.changes > 3


def test_shares_are_read_back_as_they_were_sent() -> None:
    sent = {"url": "http://a:1", "in_flight": 3, "outstanding_tokens": 1.5}
    body = {**node_message(snapshot(), (), 50.0), "replicas": [sent]}
    (share,) = read_shares(json.dumps(body).encode())
    assert (share.url, share.in_flight, share.outstanding_tokens) == ("http://a:1", 3, 1.5)
    assert read_shares(b'{"version": 1}') == ()
    one = {"url": "u", "in_flight": 0, "outstanding_tokens": 0}
    with pytest.raises(ShareError, match="length"):
        read_shares(json.dumps({"replicas": [one] * (MAX_REPLICAS + 1)}).encode())
