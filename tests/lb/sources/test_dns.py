"""Replicas from DNS, against a real server on loopback."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import dns.rcode
import pytest

from lb.clock import Clock
from lb.endpoint import Endpoint
from lb.errors import SettingsError
from lb.settings import DnsSource
from lb.sources import dns as dns_source
from lb.sources.dns import Answer, DnsRecords, LastGood, Record


class Fixture:
    """A source, what it pushed, and the time."""

    def __init__(self, server: Any, **settings: object) -> None:
        settings = {"name": "vllm.test", "port": 8000, "keep_s": 300.0} | settings
        if settings.get("type") == "SRV":
            settings.pop("port")
        self.now = 0.0
        self.pushed: list[list[Endpoint]] = []
        clock = Clock(monotonic=lambda: self.now, wall=lambda: 0.0)
        policy = DnsSource(nameservers=(server.address,), **settings)  # type: ignore[arg-type]
        self.source = DnsRecords(policy, clock, random.Random(1))

    def push(self, endpoints: Sequence[Endpoint]) -> None:
        self.pushed.append(list(endpoints))

    async def look(self) -> float:
        return await self.source.look(self.push)

    def urls(self) -> list[str]:
        return [endpoint.url for endpoint in self.pushed[-1]]


async def test_a_records_become_replicas_with_an_identity_of_name_and_address(server: Any) -> None:
    server.records["vllm.test", "A"] = ["10.0.0.2", "10.0.0.1"]
    fixture = Fixture(server, models=("m",), runtime="vllm", tls=True)
    assert await fixture.look() == 30
    first, second = fixture.pushed[0]
    assert first == Endpoint(
        id="vllm.test/10.0.0.1:8000",
        host="10.0.0.1",
        port=8000,
        tls=True,
        tls_name="vllm.test",
        models=("m",),
        runtime="vllm",
    )
    assert second.id == "vllm.test/10.0.0.2:8000"
    assert (fixture.source.state.endpoints, fixture.source.state.error) == (2, None)


async def test_aaaa_records(server: Any) -> None:
    server.records["vllm.test", "AAAA"] = ["fd00::1"]
    fixture = Fixture(server, type="AAAA")
    await fixture.look()
    assert fixture.urls() == ["http://[fd00::1]:8000"]
    assert fixture.pushed[0][0].id == "vllm.test/[fd00::1]:8000"


async def test_srv_brings_port_and_weight_of_the_first_priority(server: Any) -> None:
    server.records["vllm.test", "SRV"] = ["1 30 8001 a.test.", "1 10 8002 b.test.", "2 10 8003 c.test."]
    server.records["a.test", "A"] = ["10.0.0.1"]
    server.records["b.test", "A"] = ["10.0.0.2"]
    server.records["b.test", "AAAA"] = ["fd00::2"]
    fixture = Fixture(server, type="SRV")
    await fixture.look()
    found = {endpoint.url: endpoint.weight for endpoint in fixture.pushed[0]}
    assert found == {"http://10.0.0.1:8001": 1.5, "http://10.0.0.2:8002": 0.5, "http://[fd00::2]:8002": 0.5}
    assert ("c.test", "A") not in server.queries


async def test_srv_weights_that_are_all_alike_mean_nothing(server: Any) -> None:
    server.records["vllm.test", "SRV"] = ["0 33 80 a.test.", "0 33 80 b.test."]
    server.records["a.test", "A"] = ["10.0.0.1"]
    server.records["b.test", "A"] = ["10.0.0.2"]
    fixture = Fixture(server, type="SRV")
    await fixture.look()
    assert [endpoint.weight for endpoint in fixture.pushed[0]] == [1.0, 1.0]


async def test_srv_whose_target_cannot_be_looked_up_keeps_the_last_good_set(server: Any) -> None:
    server.records["vllm.test", "SRV"] = ["0 1 80 a.test.", "0 1 80 b.test."]
    server.records["a.test", "A"] = ["10.0.0.1"]
    server.records["b.test", "A"] = ["10.0.0.2"]
    fixture = Fixture(server, type="SRV")
    await fixture.look()
    del server.records["b.test", "A"]
    await fixture.look()
    assert len(fixture.pushed) == 1
    assert "b.test" in (fixture.source.state.error or "")


async def test_f06_nxdomain_servfail_and_timeout_keep_the_last_good_set_for_ever(
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns_source, "LOOKUP_S", 0.3)
    server.records["vllm.test", "A"] = ["10.0.0.1"]
    fixture = Fixture(server)
    await fixture.look()
    for rcode in (dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED):
        server.rcode = rcode
        fixture.now += 100_000
        assert await fixture.look() == 0
        assert "vllm.test" in (fixture.source.state.error or "")
    server.rcode, server.silent = None, True
    assert await fixture.look() == 0
    assert len(fixture.pushed) == 1
    assert fixture.source.state.refreshed_at == 0, "the age of the set shows how stale it may be"
    server.silent = False
    server.records["vllm.test", "A"] = ["10.0.0.2"]
    await fixture.look()
    assert fixture.urls() == ["http://10.0.0.2:8000"]
    assert fixture.source.state.error is None


async def test_f07_an_answer_without_records_is_believed_after_the_grace(server: Any) -> None:
    server.records["vllm.test", "A"] = ["10.0.0.1"]
    fixture = Fixture(server, keep_s=60.0)
    await fixture.look()
    server.records["vllm.test", "A"] = []
    server.records["vllm.test", "TXT"] = ['"the name exists"']
    fixture.now = 10
    await fixture.look()
    fixture.now = 69
    await fixture.look()
    assert len(fixture.pushed) == 1
    assert fixture.source.state.error == "the answer holds no records"
    fixture.now = 70
    await fixture.look()
    assert fixture.pushed[1:] == [[]]


async def test_f08_a_replaced_address_is_another_replica(server: Any) -> None:
    server.records["vllm.test", "A"] = ["10.0.0.1", "10.0.0.2"]
    fixture = Fixture(server)
    await fixture.look()
    server.records["vllm.test", "A"] = ["10.0.0.2", "10.0.0.3"]
    await fixture.look()
    assert fixture.urls() == ["http://10.0.0.2:8000", "http://10.0.0.3:8000"]
    assert fixture.pushed[0][1] == fixture.pushed[1][0], "the one that stayed is the same replica"


async def test_f09_a_thousand_records_are_bounded_and_the_choice_is_stable(server: Any) -> None:
    ips = [f"10.1.{index // 250}.{index % 250}" for index in range(1000)]
    server.records["vllm.test", "A"] = ips
    fixture = Fixture(server, max_records=100)
    await fixture.look()
    server.records["vllm.test", "A"] = list(reversed(ips))
    await fixture.look()
    assert server.tcp_queries == 2, "an answer that UDP cannot carry is asked for again by TCP"
    assert len(fixture.pushed) == 1
    assert fixture.urls() == [f"http://{ip}:8000" for ip in ips[:100]]


async def test_f10_equal_records_count_once(server: Any) -> None:
    server.records["vllm.test", "SRV"] = ["0 1 80 a.test.", "0 1 80 b.test."]
    server.records["a.test", "A"] = server.records["b.test", "A"] = ["10.0.0.1"]
    fixture = Fixture(server, type="SRV")
    await fixture.look()
    assert fixture.urls() == ["http://10.0.0.1:80"]


async def test_rotated_answers_push_nothing(server: Any) -> None:
    server.records["vllm.test", "A"] = ["10.0.0.1", "10.0.0.2"]
    fixture = Fixture(server)
    await fixture.look()
    server.records["vllm.test", "A"] = ["10.0.0.2", "10.0.0.1"]
    await fixture.look()
    assert len(fixture.pushed) == 1


@pytest.mark.parametrize(("ttl", "expected_s"), [(0, 5.0), (2, 5.0), (60, 60.0), (86_400, 300.0)])
async def test_the_ttl_is_honoured_between_the_floor_and_the_ceiling(
    server: Any, ttl: int, expected_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise asyncio.CancelledError

    server.ttl = ttl
    server.records["vllm.test", "A"] = ["10.0.0.1"]
    fixture = Fixture(server)
    monkeypatch.setattr(dns_source.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await fixture.source.run(fixture.push)
    assert expected_s <= waits[0] <= expected_s * 1.1


def test_names_of_sources_are_unique() -> None:
    clock = Clock(lambda: 0.0, lambda: 0.0)
    sources = [
        DnsRecords(DnsSource(name="a", port=port, type=kind, nameservers=("127.0.0.1",)), clock)  # type: ignore[arg-type]
        for port, kind in ((1, "A"), (2, "A"), (1, "AAAA"), (None, "SRV"))
    ]
    assert len({source.name for source in sources}) == 4


def test_a_machine_without_nameservers_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise dns_source.dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns_source.dns.asyncresolver, "Resolver", fail)
    with pytest.raises(SettingsError, match="set `nameservers`"):
        DnsRecords(DnsSource(name="a", port=1), Clock(lambda: 0.0, lambda: 0.0))


A = Record("10.0.0.1", 80)
B = Record("10.0.0.2", 80)


def test_last_good_folds_answers() -> None:
    last_good = LastGood(keep_s=10)
    assert last_good.fold(None, 0) is None
    assert last_good.fold(Answer((A,), 5), 1) == (A,)
    assert last_good.fold(Answer((A,), 5), 2) is None
    assert last_good.fold(Answer((), 0), 3) is None
    assert last_good.fold(None, 50) is None, "a failure says nothing about records"
    assert last_good.fold(Answer((B,), 5), 51) == (B,)
    assert last_good.fold(Answer((), 0), 52) is None, "the grace starts anew"
    assert last_good.fold(Answer((), 0), 62) == ()
    assert last_good.fold(Answer((), 0), 63) is None
