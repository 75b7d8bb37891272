"""Demand of balancers elsewhere: sums that never fall or jump, and silence that never looks like rest."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from autoscaler.action import Drain, ScaleUp
from autoscaler.loops.balancers import Balancers, Named, read_demand
from autoscaler.loops.demand import Rates, pool_demand
from autoscaler.loops.merging import HERE, Merging
from autoscaler.policy.balancers import BalancersSettings
from autoscaler.policy.load import parse
from lb.admin import AdminHooks, AdminServer
from lb.clock import Clock
from lb.endpoint import endpoint_from_url
from lb.gateway import Gateway
from lb.metrics import LbMetrics
from lb.request import RequestInfo, SurfaceName
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import LbSettings
from lb.signals import Objective
from lb.yaml_document import DocumentError
from tests.autoscaler.loops.conftest import Make, pool
from tests.autoscaler.loops.test_pure import model

TOKEN = "balancer-token-0123456789"


# ---------------------------------------------------------------------- sums


def offered(merging: Merging, sources: tuple[str, ...], now: float) -> int:
    found = merging.merged(sources, now).models.get("m")
    return 0 if found is None else found.offered_total


def test_what_a_balancer_counted_before_it_was_known_is_not_of_now() -> None:
    merging = Merging(40.0)
    merging.take(HERE, {}, 0.0)
    merging.take("a", {"m": model(offered_total=9000)}, 0.0)
    assert offered(merging, ("a",), 0.0) == 0
    merging.take("a", {"m": model(offered_total=9030)}, 15.0)
    assert offered(merging, ("a",), 15.0) == 30


def test_a_restart_and_a_farewell_take_nothing_away() -> None:
    merging = Merging(40.0)
    merging.take(HERE, {}, 0.0)
    for total, now in ((100, 0.0), (150, 15.0), (5, 30.0), (25, 45.0)):
        merging.take("a", {"m": model(offered_total=total)}, now)
        merging.take("b", {"m": model(offered_total=2 * total)}, now)
    merging.take(HERE, {}, 45.0)
    assert offered(merging, ("a", "b"), 45.0) == 70 + 140
    merging.keep(["b"])
    found = merging.merged(("b",), 45.0)
    assert found.complete
    assert found.models["m"].offered_total == 210


def test_silence_is_not_rest_and_its_requests_are_not_counted_at_once() -> None:
    merging = Merging(40.0)
    for now in (0.0, 15.0):
        merging.take(HERE, {"m": model(offered_total=int(now))}, now)
        merging.take("a", {"m": model(offered_total=1000 + int(now))}, now)
    assert merging.merged(("a",), 15.0).complete
    merging.take(HERE, {"m": model(offered_total=60)}, 60.0)
    assert not merging.merged(("a",), 60.0).complete
    merging.take("a", {"m": model(offered_total=50_000)}, 75.0)
    merging.take(HERE, {"m": model(offered_total=75)}, 75.0)
    assert merging.merged(("a",), 75.0).complete
    before = offered(merging, ("a",), 75.0)
    assert before < 200, "a jump would look like a burst"
    merging.take("a", {"m": model(offered_total=50_010)}, 90.0)
    assert offered(merging, ("a",), 90.0) == before + 10


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", HERE]), st.integers(0, 1000), st.floats(0.0, 60.0), st.booleans()),
        max_size=60,
    )
)
def test_sums_never_fall_whoever_comes_restarts_and_goes(steps: list[tuple[str, int, float, bool]]) -> None:
    merging, now, last = Merging(40.0), 0.0, 0
    for source, total, pause, goes in steps:
        now += pause
        merging.take(source, {"m": model(offered_total=total)}, now)
        if goes:
            merging.keep([one for one in ("a", "b") if one != source])
        total_now = offered(merging, (), now)
        if merging.merged((), now).models:
            assert total_now >= last
            last = total_now


def test_work_adds_up_and_quantiles_are_the_worst() -> None:
    merging = Merging(40.0)
    one = model(in_flight=3, queued=1, backlog_s=4.0, first_token_p95_s=0.5, missed_total=None)
    other = model(in_flight=5, queued=2, backlog_s=inf, first_token_p95_s=1.5)
    merging.take(HERE, {"m": one}, 0.0)
    merging.take("a", {"m": other}, 0.0)
    found = merging.merged(("a",), 0.0).models["m"]
    assert (found.in_flight, found.queued, found.backlog_s, found.first_token_p95_s) == (8, 3, 4.0, 1.5)
    assert found.missed_total is None, "one of them does not count misses"


def test_what_is_only_partly_known_is_not_known() -> None:
    rates = Rates()
    for tick in range(5):
        pool_demand(pool(), ("m",), {"m": model(offered_total=30 * tick)}, [], rates, at=15.0 * tick, interval_s=15.0)
    part = pool_demand(pool(), ("m",), {"m": model()}, [], rates, at=75.0, interval_s=15.0, complete=False)
    assert (part.requests_per_s, part.queued, part.in_flight, part.backlog_s, part.offered_total) == (None,) * 5
    after = pool_demand(pool(), ("m",), {"m": model(offered_total=9)}, [], rates, at=90.0, interval_s=15.0)
    assert after.requests_per_s is None, "counted anew"


# ---------------------------------------------------------------------- over the network


class Elsewhere:
    """A balancer with an admin API of its own."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.gateway = Gateway(LbSettings(), loop, random.Random(1))
        replica = endpoint_from_url("http://127.0.0.1:1", models=("m",))
        self.gateway.set_source("static", [replica])
        for _ in range(3):
            self.gateway.observe_probe(replica.id, ProbeResult(ProbeStatus.READY))
        self.gateway.expect({"m": Objective(2.0, 0.1)}, None)
        metrics = LbMetrics(CollectorRegistry(), version="1", now=loop.time)
        hooks = AdminHooks(version="1", readiness=lambda: "")
        self.server = AdminServer(self.gateway, metrics, hooks, listen="127.0.0.1:0", token=TOKEN)

    def offer(self, count: int) -> None:
        for number in range(count):
            info = RequestInfo(f"r{number}", SurfaceName.CHAT, "m", prompt_tokens=100, max_tokens=50)
            self.gateway.balancer.offer(info, self.gateway.now())


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    one = Elsewhere()
    await one.server.start()
    yield one
    await one.server.stop()
    one.gateway.close()


def asked(url: str, now: list[float], token: str | None = TOKEN) -> Balancers:
    settings = BalancersSettings(url=url, timeout_s=2.0)
    named = Named(settings, None if token is None else f"Bearer {token}")
    return Balancers((named,), Clock(lambda: now[0], lambda: now[0]), stale_s=40.0)


async def test_demand_is_read_from_another_process(elsewhere: Elsewhere) -> None:
    now = [100.0]
    balancers = asked(f"http://{elsewhere.server.address}", now)
    await balancers.look()
    elsewhere.offer(7)
    now[0] += 15.0
    await balancers.look()
    found = balancers.merged({}, now[0])
    assert found.complete
    assert (found.models["m"].offered_total, found.models["m"].missed_total) == (7, 0)
    assert balancers.errors() == {}
    await balancers.close()


@pytest.mark.parametrize("token", [None, "wrong-token-0123456789"])
async def test_one_that_refuses_makes_the_demand_unknown(elsewhere: Elsewhere, token: str | None) -> None:
    balancers = asked(f"http://{elsewhere.server.address}", [100.0], token)
    await balancers.look()
    assert not balancers.merged({"m": model()}, 100.0).complete
    assert "401" in balancers.errors()[f"http://{elsewhere.server.address}"]
    await balancers.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid:9400"])
async def test_one_that_is_not_there_makes_the_demand_unknown(url: str) -> None:
    balancers = asked(url, [100.0])
    await balancers.look()
    assert not balancers.merged({}, 100.0).complete
    assert list(balancers.errors()) == [url]
    await balancers.close()


async def test_each_address_of_a_name_is_a_balancer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a headless Service has them; one of two that is silent leaves the demand unknown."""
    both = ["127.0.0.1", "127.0.0.2"]

    async def found(_host: str, port: int, **_options: object) -> list[tuple[Any, ...]]:
        return [(2, 1, 6, "", (address, port)) for address in (*both, *both)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    one = Elsewhere()
    await one.server.start()
    port = one.server.address.rpartition(":")[2]
    balancers = asked(f"http://balancers:{port}", [100.0])
    await balancers.look()
    assert list(balancers.errors()) == [f"http://127.0.0.2:{port}"]
    assert not balancers.merged({}, 100.0).complete
    assert "127.0.0.2" in balancers.keeps("any", 100.0)
    del both[1]
    await balancers.look()
    assert balancers.errors() == {}, "a node that is gone is missed by nobody"
    assert balancers.merged({}, 100.0).complete
    await balancers.close()
    await one.server.stop()
    one.gateway.close()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"models": {"m": 3}}', b'{"models": {"m": {}}}', b"\xff"])
def test_what_is_no_demand_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_demand(body)


def test_an_endless_backlog_comes_back_as_such() -> None:
    body = msgspec.json.encode({"at": 1.0, "models": {"m": model(backlog_s=inf)}, "new": 1})
    assert read_demand(body)["m"].backlog_s == inf


class Scripted(Balancers):
    """Balancers whose answers a test writes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__((Named(BalancersSettings(url="http://there:1")),), clock, stale_s=40.0)
        self.models: dict[str, Any] | None = {}
        self._known = {"http://there:1": ("http://10.0.0.9:1",)}

    async def look(self) -> None:
        if self.models is not None:
            self._merging.take("http://10.0.0.9:1", self.models, self._clock.monotonic())


async def test_a_controller_that_balances_nothing_follows_the_demand_elsewhere(make: Make) -> None:
    rig = await make(ready=1)
    there = Scripted(rig.clock)
    rig.loop._balancers = there
    for tick in range(20):
        there.models = {"m": model(offered_total=45 * tick, served_total=40 * tick, in_flight=5)}
        await rig.tick()
    assert len(rig.actuator.machines) >= 3, "three a second, of which one replica serves one"
    there.models = None
    before = len(rig.actuator.asked)
    await rig.tick(30)
    assert [one for one in rig.actuator.asked[before:] if isinstance(one, Drain)] == [], "silence lowers nothing"
    there.models = {"m": model(offered_total=45 * 20, served_total=800)}
    await rig.tick(40)
    assert rig.actuator.names(Drain) != []
    assert rig.actuator.names(ScaleUp) != []


def test_a_policy_names_balancers_properly() -> None:
    with pytest.raises(DocumentError) as caught:
        parse("scaling:\n  balancers:\n    - {url: 'ftp://x', token: secret}\n")
    said = " ".join(problem.text("p.yaml") for problem in caught.value.problems)
    assert "scaling.balancers[0].url" in said
    assert "scaling.balancers[0].token" in said
