"""Discovery while the API misbehaves: a fault proxy before the real API server, or that server killed and restarted."""

from __future__ import annotations

import asyncio
import time

import pytest

from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.kube import Access, Explicit, GoneError, KubeApi
from lb.kube.pace import LONGEST_S, SPACING_S
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.fault_proxy import Answer, FaultProxy, Way
from tests.kubernetes.following import Followed, following
from tests.kubernetes.workloads import DEPLOYMENTS

SLACK_S = 0.05
"""Between our reading of the clock and the proxy's: a call that has to connect first arrives later than one that need
not."""


def ids(endpoints: tuple[Endpoint, ...]) -> set[str]:
    return {endpoint.id for endpoint in endpoints}


async def scale(api: KubeApi, namespace: str, replicas: int) -> None:
    await api.patch(f"{DEPLOYMENTS.format(namespace)}/llm/scale", {"spec": {"replicas": replicas}})


async def ready(api: KubeApi, namespace: str) -> set[str]:
    """UIDs of the pods that are there and not on their way out."""
    pods = await api.list_all(f"/api/v1/namespaces/{namespace}/pods")
    return {
        pod["metadata"]["uid"]
        for pod in pods.items
        if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] == "Running"
    }


async def settled(api: KubeApi, namespace: str, count: int) -> set[str]:
    """The UIDs once there are `count` of them."""
    for _ in range(60):
        found = await ready(api, namespace)
        if len(found) == count:
            return found
        await asyncio.sleep(0.3)
    raise AssertionError(f"there are not {count} pods, but {len(found)}")


async def two(followed: Followed, proxy: FaultProxy | None = None, watches: int = 1) -> None:
    """Until both replicas are known, and the watches are open."""
    await followed.until(lambda: len(followed.now) == 2)
    if proxy is not None:
        await followed.until(lambda: [call.kind for call in proxy.calls].count("watch") == watches)


async def test_j02_410_on_a_watch_of_the_real_server_leads_to_a_list(
    cluster: Cluster, api: KubeApi, proxy: FaultProxy, started: str
) -> None:
    """The watch hangs while pods change and the API server is restarted: its memory of what happened is gone then."""
    async with following(cluster.access(url=proxy.url), started, service="llm", watch_idle_s=1.0) as followed:
        await two(followed, proxy)
        proxy.fail(Way.HANG)
        old = (await api.list_all("/api/v1/nodes")).resource_version
        await scale(api, started, 3)
        wanted = await settled(api, started, 3)
        cluster.kill_api()
        cluster.start_api()
        with pytest.raises(GoneError):  # so that the test tests what its name says
            await anext(api.watch("/api/v1/nodes", resource_version=old, idle_s=5.0))
        assert len(followed.sets[-1]) == 2
        first = len(proxy.calls)
        proxy.fail(Way.PASS)
        await followed.until(lambda: ids(followed.now) == wanted, 45)
        assert followed.source.state.error is None
    assert "get" in [call.kind for call in proxy.calls[first:]], "no list"


async def test_j03_retry_after_of_a_429_is_honoured(cluster: Cluster, proxy: FaultProxy, started: str) -> None:
    proxy.answers = [Answer(429, {"Retry-After": "3"})]
    async with following(cluster.access(url=proxy.url), started, service="llm") as followed:
        await two(followed)
    assert proxy.spacing_s()[0] >= 3.0


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503, 504])
async def test_j04_at_most_one_call_a_second_in_any_error(
    cluster: Cluster, proxy: FaultProxy, started: str, status: int
) -> None:
    async with following(cluster.access(url=proxy.url), started, service="llm", pods="app=llm") as followed:
        await two(followed, proxy, watches=2)
        before = followed.now
        proxy.answer = Answer(status)
        first = len(proxy.calls)
        proxy.fail(Way.CUT)
        proxy.fail(Way.PASS)
        await asyncio.sleep(5)
        assert str(status) in str(followed.source.state.error)
        assert followed.sets[-1] == before
    spacing_s = proxy.spacing_s(first)
    print(f"{status}: {len(spacing_s) + 1} calls in 5 s")
    assert spacing_s
    assert min(spacing_s) >= SPACING_S - SLACK_S


@pytest.mark.parametrize("way", [Way.CUT, Way.HANG])
async def test_j09_a_partition_leaves_the_last_good_set_and_is_made_up_for(
    cluster: Cluster, api: KubeApi, proxy: FaultProxy, started: str, way: Way
) -> None:
    async with following(cluster.access(url=proxy.url), started, service="llm", watch_idle_s=1.0) as followed:
        await two(followed, proxy)
        sets, first = len(followed.sets), len(proxy.calls)
        proxy.fail(way)
        await scale(api, started, 4)
        wanted = await settled(api, started, 4)
        await asyncio.sleep(3)
        assert len(followed.sets) == sets
        proxy.fail(Way.PASS)
        took_s = await followed.until(lambda: ids(followed.now) == wanted, 20)
        assert followed.source.state.error is None
    print(f"{way}: right again after {took_s:.2f} s")
    assert all(spacing_s >= SPACING_S - SLACK_S for spacing_s in proxy.spacing_s(first))


async def test_j08_a_watch_that_hangs_is_noticed_and_opened_anew(
    cluster: Cluster, api: KubeApi, proxy: FaultProxy, started: str
) -> None:
    """Only what is open hangs, as after a firewall has forgotten a connection: a new watch is all it takes."""
    async with following(cluster.access(url=proxy.url), started, service="llm", watch_idle_s=2.0) as followed:
        await two(followed, proxy)
        proxy.fail(Way.HANG)
        await scale(api, started, 3)
        await settled(api, started, 3)
        await asyncio.sleep(0.2)
        assert len(followed.now) == 2
        proxy.forget()
        proxy.fail(Way.PASS)
        await followed.until(lambda: len(followed.now) == 3, 5)
    assert [call.kind for call in proxy.calls].count("get") == 1


async def test_the_api_server_restarts_on_the_same_port(cluster: Cluster, api: KubeApi, started: str) -> None:
    async with following(cluster.access(), started, service="llm", pods="app=llm") as followed:
        await two(followed)
        before, sets = followed.now, len(followed.sets)
        cluster.kill_api()
        await followed.until(lambda: followed.source.state.error is not None)
        cluster.start_api()  # not in a thread: it would end with it
        assert followed.sets[sets:] == []
        assert followed.now == before
        await followed.until(lambda: followed.source.state.error is None, 45)
        await scale(api, started, 3)
        await followed.until(lambda: len(followed.now) == 3)
    assert all(len(found) >= 2 for found in followed.sets[sets:]), "a replica was given up for the restart"


async def test_j05_a_token_that_was_replaced_is_read_again(cluster: Cluster, api: KubeApi, started: str) -> None:
    access = cluster.access(token="no longer valid")
    async with following(access, started, service="llm") as followed:
        await followed.until(lambda: "401" in str(followed.source.state.error))
        assert followed.sets == []
        access.token_file.write_text(cluster.tokens["admin"])
        await two(followed)


async def test_one_watch_that_is_not_allowed_does_not_blind_the_source_to_its_last_set(
    cluster: Cluster, proxy: FaultProxy, started: str
) -> None:
    """Slices are seen and pods are not: nothing is known of the pods' annotations, so nothing is pushed yet."""
    proxy.refused = "/pods"
    async with following(cluster.access(url=proxy.url), started, service="llm", pods="app=llm") as followed:
        await followed.until(lambda: followed.source.state.error is not None)
        await asyncio.sleep(0.5)
        assert followed.sets == []
        proxy.refused = None
        await two(followed)


SPEED = 30.0
"""Seconds of the balancer's clock per second of ours."""


async def test_j09_ten_minutes_without_the_api(cluster: Cluster, api: KubeApi, proxy: FaultProxy, started: str) -> None:
    """On a clock that runs thirty times as fast: the waits between calls are real, each thirty times shorter."""
    begun = time.monotonic()
    clock = Clock(lambda: (time.monotonic() - begun) * SPEED, time.time)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)

    def connect(access: Access) -> KubeApi:
        return KubeApi(access, clock=clock, sleep=sleep)

    access: Explicit = cluster.access(url=proxy.url)
    async with following(access, started, clock=clock, connect=connect, service="llm") as followed:
        await two(followed, proxy)
        sets, first = len(followed.sets), len(proxy.calls)
        cut_at = clock.monotonic()
        proxy.fail(Way.CUT)
        await scale(api, started, 4)
        wanted = await settled(api, started, 4)
        while clock.monotonic() - cut_at < 600:
            await asyncio.sleep(0.1)
            assert len(followed.sets) == sets, "the set changed while nobody could know better"
        state = followed.source.state
        assert state.refreshed_at is not None
        assert 595 < clock.monotonic() - state.refreshed_at < 660, "how old the set is can be seen"
        calls = len(proxy.calls) - first
        healed_at = clock.monotonic()
        proxy.fail(Way.PASS)
        await followed.until(lambda: ids(followed.now) == wanted, 10)
        took_s = clock.monotonic() - healed_at
        await asyncio.sleep(5 * SPACING_S / SPEED)
    spacing_s = [spacing * SPEED for spacing in proxy.spacing_s(first)]
    print(
        f"600 s without the API: {calls} calls, at least {min(spacing_s):.2f} s apart; right again {took_s:.0f} s later"
    )
    assert calls < 40
    assert min(spacing_s) >= SPACING_S - SPEED * SLACK_S
    assert took_s < 1.5 * LONGEST_S + SPEED
