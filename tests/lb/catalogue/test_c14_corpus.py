"""C14: the hostile corpus, judged by the bytes that reach a replica."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.lb.catalogue.client import Client
from tests.lb.catalogue.conftest import MakeWorld
from tests.lb.catalogue.corpus import Payload, corpus
from tests.lb.catalogue.upstream import Upstream
from tests.lb.catalogue.world import World

AT_ONCE = 40
BLAMES_THE_SERVER = frozenset({500, 502, 503, 504})
"""501 and 505 are the protocol's own answers to a method, encoding or version that is not spoken."""


async def test_c14_nothing_dirty_of_the_corpus_reaches_a_replica(make_world: MakeWorld) -> None:
    payloads = corpus()
    assert len(payloads) >= 1000
    world = await make_world(control=False, timeouts={"head_s": 0.3, "body_s": 0.3})
    answers: dict[str, list[int] | None] = {}
    queue = list(reversed(payloads))

    async def worker() -> None:
        while queue:
            payload = queue.pop()
            answers[payload.name] = await _answers(world, payload)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    upstream = world.upstreams[0]
    assert upstream.dirty == [], f"{len(upstream.dirty)} dirty"  # framing, look-alikes and hosts alike
    assert all(len(request.all("host")) == 1 for request in upstream.requests)
    blamed = {name: got for name, got in answers.items() if got and BLAMES_THE_SERVER & set(got)}
    assert not blamed
    silent = [name for name, got in answers.items() if got is None]
    assert not silent, "neither answered nor closed"
    for payload in payloads:
        if payload.compliant:
            assert answers[payload.name] == [200], payload
    forwarded = len(upstream.requests)
    print(f"{len(payloads)} payloads, {forwarded} requests forwarded, answers {_histogram(answers)}")


async def _answers(world: World, payload: Payload) -> list[int] | None:
    """Statuses in order; None: the connection neither brought an answer nor closed."""
    client = await world.client()
    statuses: list[int] = []
    try:
        await client.send(payload.data)
        head_only = payload.data.startswith(b"HEAD ")
        while True:
            response = await client.response(head_only=head_only, timeout_s=2.0 if not statuses else 0.05)
            if response is None:
                return statuses
            statuses.append(response.status)
            if response.close:
                return statuses
    except TimeoutError:
        return statuses or None
    finally:
        client.close()


def _histogram(answers: dict[str, list[int] | None]) -> dict[int, int]:
    return dict(sorted(Counter(status for got in answers.values() for status in got or []).items()))


async def test_c14_the_judge_is_not_blind() -> None:
    """The same corpus straight to the capturing replica, without a proxy between."""
    upstream = await Upstream().start()

    async def send(payload: Payload) -> None:
        client = await Client.connect(upstream.address)
        await client.send(payload.data)
        client.half_close()
        await client.ended()
        client.close()

    payloads = corpus()
    for start in range(0, len(payloads), AT_ONCE):
        await asyncio.gather(*(send(payload) for payload in payloads[start : start + AT_ONCE]))
    assert len(upstream.dirty) > 1000
    await upstream.close()
