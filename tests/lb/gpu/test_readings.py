"""From cards to replicas: which card a replica is on, what it is told, and when."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.endpoint import Endpoint
from lb.feeds.gpu_feeds import GpuFeeds
from lb.feeds.gpu_readings import GpuReadings, NodeView, reading_of
from lb.feeds.places import Places
from lb.replica import GpuReading, GpuState
from nvml.drivers.fake import FakeDriver
from nvml.health import as_of
from nvml.owners import OwnerResolver
from nvml.sample import GpuSnapshot, NodeSnapshot, Reason, ReasonCode
from nvml.sample import GpuState as CardState
from nvml.sampler import Sampler
from nvml.settings import NvmlSettings

GIB = 1 << 30


def card(index: int = 0, state: CardState = CardState.OK, **fields: Any) -> GpuSnapshot:
    reasons = () if state is CardState.OK else (Reason(ReasonCode.XID, f"said {state}"),)
    fields = {"memory_total_bytes": 80 * GIB, "headroom_bytes": 8 * GIB, "ports": (8000 + index,), **fields}
    return GpuSnapshot(uuid=f"GPU-{index}", index=index, taken_at=100.0, state=state, reasons=reasons, **fields)


@dataclass
class Sink:
    """A gateway that remembers."""

    listed: tuple[Endpoint, ...] = ()
    told: list[tuple[str, GpuReading | None]] = field(default_factory=list)
    callbacks: list[Callable[[tuple[Endpoint, ...]], None]] = field(default_factory=list)

    def endpoints(self) -> tuple[Endpoint, ...]:
        return self.listed

    def on_endpoints(self, callback: Callable[[tuple[Endpoint, ...]], None]) -> None:
        self.callbacks.append(callback)
        callback(self.listed)

    def observe_gpu(self, replica_id: str, reading: GpuReading | None) -> None:
        self.told.append((replica_id, reading))

    def list(self, *endpoints: Endpoint) -> None:
        self.listed = endpoints
        for callback in self.callbacks:
            callback(endpoints)

    def take(self) -> dict[str, GpuReading | None]:
        told, self.told = dict(self.told), []
        return told


@dataclass
class Desk:
    """`GpuReadings` with its surroundings in a test's hand."""

    sink: Sink = field(default_factory=Sink)
    nodes: list[NodeView] = field(default_factory=list)
    now: float = 100.0
    ports: list[frozenset[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.readings = GpuReadings(
            self.sink,
            Places(lambda address: address == "10.0.0.1"),
            nodes=lambda now: self.nodes,
            now=lambda: self.now,
            declare_ports=lambda ports: self.ports.append(frozenset(ports)),
        )

    def look(self) -> dict[str, GpuReading | None]:
        self.readings.look()
        return self.sink.take()


@pytest.fixture
async def desk() -> Desk:
    return Desk()


def here(*cards: GpuSnapshot) -> NodeView:
    return NodeView(NodeSnapshot(taken_at=100.0, gpus=cards))


def there(host: str, *cards: GpuSnapshot) -> NodeView:
    return NodeView(NodeSnapshot(taken_at=100.0, gpus=cards), (host,))


async def test_a_replica_of_this_machine_is_tied_by_its_port(desk: Desk) -> None:
    desk.nodes = [here(card(0), card(1, CardState.LOST))]
    desk.sink.list(Endpoint("a", "127.0.0.1", 8000), Endpoint("b", "10.0.0.1", 8001), Endpoint("c", "10.0.0.9", 8001))
    told = desk.look()
    assert told["a"] == GpuReading(GpuState.OK, headroom_ratio=0.1, speed_ratio=1.0)
    assert told["b"] is not None
    assert (told["b"].state, told["b"].reason) == (GpuState.LOST, "GPU 1: said lost")
    assert told["c"] is None, "the same port on another machine is another replica"
    assert desk.ports == [frozenset({8000, 8001})], "declared once: those of this machine"


async def test_a_replica_of_a_peer_is_tied_there(desk: Desk) -> None:
    desk.nodes = [here(card(0)), there("10.0.0.9", replace(card(1), uuid="GPU-x", ports=(8000,), speed_ratio=0.5))]
    desk.sink.list(Endpoint("a", "127.0.0.1", 8000), Endpoint("b", "10.0.0.9", 8000))
    told = desk.look()
    assert told["a"] == GpuReading(GpuState.OK, headroom_ratio=0.1, speed_ratio=1.0)
    assert told["b"] == GpuReading(GpuState.OK, headroom_ratio=0.1, speed_ratio=0.5)


async def test_uuids_name_cards_wherever_they_are_and_the_worst_counts(desk: Desk) -> None:
    desk.nodes = [here(card(0)), there("10.0.0.9", card(5, CardState.DRAIN))]
    desk.sink.list(Endpoint("a", "tp.test", 9999, gpu_uuids=("GPU-0", "GPU-5")))
    assert desk.look() == {
        "a": GpuReading(GpuState.DRAIN, None, None, "GPU 5 of 10.0.0.9: said drain"),
    }


async def test_only_changes_are_told_and_a_new_replica_is_told_all(desk: Desk) -> None:
    desk.nodes = [here(card(0))]
    desk.sink.list(Endpoint("a", "127.0.0.1", 8000))
    assert set(desk.look()) == {"a"}
    assert desk.look() == {}
    desk.nodes = [here(card(0, headroom_bytes=8 * GIB + 4096))]
    assert desk.look() == {}, "a few pages are no news"
    desk.sink.list(Endpoint("a", "127.0.0.2", 8000))
    assert set(desk.look()) == {"a"}, "the same id at another address is another replica"
    desk.nodes = [here()]
    assert desk.look() == {"a": None}
    assert desk.look() == {}


async def test_a_stale_reading_is_unknown_and_keeps_the_derating(desk: Desk) -> None:
    throttled = card(0, CardState.DEGRADED, speed_ratio=0.4)
    desk.sink.list(Endpoint("a", "127.0.0.1", 8000))
    desk.nodes = [here(throttled)]
    assert desk.look()["a"] == GpuReading(GpuState.DEGRADED, 0.1, 0.4, "GPU 0: said degraded")
    # The driver as a whole has failed: the view has no values at all.
    desk.nodes = [here(card(0, CardState.UNKNOWN, headroom_bytes=None))]
    assert desk.look()["a"] == GpuReading(GpuState.UNKNOWN, None, 0.4, "GPU 0: said unknown")
    desk.nodes = [here(card(0))]
    assert desk.look()["a"] == GpuReading(GpuState.OK, 0.1, 1.0)


def test_degraded_for_another_reason_than_its_clock_has_no_known_speed() -> None:
    assert reading_of([card(0, CardState.DEGRADED)], 100.0, {}) == GpuReading(
        GpuState.DEGRADED, 0.1, None, "GPU 0: said degraded"
    )
    assert reading_of([], 100.0, {}) is None


@given(
    states=st.lists(st.sampled_from(list(CardState)), min_size=1, max_size=8),
    age_s=st.floats(0, 1e6),
    deadline_s=st.floats(0.1, 100),
)
def test_age_alone_makes_nothing_healthy_and_nothing_lost(
    states: list[CardState], age_s: float, deadline_s: float
) -> None:
    fresh = NodeSnapshot(taken_at=100.0, gpus=tuple(card(index, state) for index, state in enumerate(states)))
    now = 100.0 + age_s
    old = as_of(fresh, now, deadline_s)
    before = reading_of(fresh.gpus, now, {})
    after = reading_of(old.gpus, now, {})
    assert before is not None
    assert after is not None
    bad = (GpuState.DRAIN, GpuState.LOST)
    assert (after.state in bad) == (before.state in bad)
    if before.state in bad:
        assert after.state is before.state
    elif age_s > deadline_s:
        assert after.state is GpuState.UNKNOWN
        assert after.headroom_ratio is None


@pytest.mark.parametrize("how", ["says", "vanishes"])
async def test_a_lost_card_is_out_within_two_samples(how: str) -> None:
    """Counted, not timed: the sampler is stepped by hand."""
    driver, now = FakeDriver(), [0.0]
    driver.change(0, processes=())
    sampler = Sampler(driver, NvmlSettings(driver="fake"), OwnerResolver(10.0), clock=lambda: now[0])
    sink = Sink()
    sink.list(Endpoint("a", "127.0.0.1", 8000, gpu_uuids=(driver.gpus[0].uuid,)))
    readings = GpuReadings(
        sink,
        Places(),
        nodes=lambda at: [NodeView(sampler.latest(at))],
        now=lambda: now[0],
        declare_ports=sampler.declare_ports,
    )

    def sample() -> GpuReading | None:
        now[0] += 1.0
        sampler.step()
        readings.look()
        return sink.take().get("a")

    first = sample()
    assert first is not None
    assert first.state is GpuState.OK
    if how == "says":
        driver.lose(0)
    else:
        del driver.gpus[0]
    seen = [sample(), sample()]
    assert any(reading is not None and reading.state is GpuState.LOST for reading in seen)


async def test_the_feeds_tell_at_once_and_stop_with_a_hung_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the sampler's thread to the sink and back, with a driver that hangs in the end."""
    driver = FakeDriver()
    hang = threading.Event()
    read = driver.read

    def reading(now: float) -> Any:
        if hang.is_set():
            threading.Event().wait(5.0)
        return read(now)

    monkeypatch.setattr(driver, "read", reading)
    monkeypatch.setattr("lb.feeds.gpu_feeds.make_driver", lambda settings: driver)
    sink = Sink()
    sink.list(Endpoint("a", "localhost", 8000, gpu_uuids=(driver.gpus[0].uuid,)))
    feeds = GpuFeeds(sink, NvmlSettings(driver="fake", interval_s=0.02, deadline_s=0.1), rng=random.Random(1))
    await feeds.start()

    async def told(state: GpuState) -> None:
        for _ in range(1000):
            if any(reading is not None and reading.state is state for _, reading in sink.told):
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"never told: {state}")

    await told(GpuState.OK)
    driver.lose(0)
    await told(GpuState.LOST)
    assert feeds.snapshot().gpus[0].state is CardState.LOST
    hang.set()
    await asyncio.sleep(0.05)
    async with asyncio.timeout(4):
        await feeds.stop()
