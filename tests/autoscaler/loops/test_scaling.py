"""Making and remaking the controller: where its state lies, what is kept over a reload, what is refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from autoscaler.errors import StartError
from autoscaler.loops.scaling import Scaling
from autoscaler.metrics import ControlMetrics
from autoscaler.policy.lease import LeaseSettings
from autoscaler.policy.pools import PoolSettings
from autoscaler.policy.schema import Policy
from autoscaler.policy.store import StoreSettings
from autoscaler.roots import RootTasks
from autoscaler.store import STORE_FILE
from lb.clock import SYSTEM_CLOCK, Clock
from lb.endpoint import endpoint_from_url
from lb.errors import SettingsError
from lb.gateway import Gateway
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import LbSettings
from nvml.sample import GpuSnapshot, NodeSnapshot
from tests.autoscaler.loops import conftest


def pool(name: str = "chat", **fields: Any) -> PoolSettings:
    """One whose replicas are the balancer's."""
    return conftest.pool(name, **{"actuator": {"type": "dry_run"}, **fields})


@dataclass
class World:
    """A gateway, root tasks, and a directory for the policy."""

    gateway: Gateway
    roots: RootTasks
    base: Path

    def scaling(self, **environ: str) -> Scaling:
        loop = asyncio.get_running_loop()
        cards = (GpuSnapshot(uuid="GPU-1", index=0, taken_at=0.0, utilisation_ratio=0.5),)
        return Scaling(
            self.gateway, Clock(loop.time, SYSTEM_CLOCK.wall), ControlMetrics(CollectorRegistry()), self.roots,
            base=self.base, environ={"HOME": str(self.base / "home"), **environ},
            gpus=lambda: NodeSnapshot(taken_at=0.0, gpus=cards),
        )  # fmt: skip


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    one = World(Gateway(LbSettings(), loop, random.Random(1)), RootTasks(), tmp_path)
    yield one
    await one.roots.stop_all()
    one.gateway.close()


def policy(*pools: object, directory: str | None = None, **scaling: object) -> Policy:
    return Policy.model_validate(
        {"scaling": {"interval_s": 1.0, "pools": pools, **scaling}, "store": {"directory": directory}}
    )


async def test_without_pools_and_without_a_place_nothing_runs(world: World) -> None:
    scaling = world.scaling()
    await scaling.start(scaling.prepare(Policy()))
    assert (scaling.store, scaling.control, scaling.pools()) == (None, None, [])
    assert await scaling.explain("chat", None) is None
    assert scaling.restart_needed(scaling.prepare(policy(pool(mode="advise")))) == []
    await scaling.close()


@pytest.mark.parametrize(
    ("directory", "environ", "expected"),
    [
        ("state", {}, "state"),
        (None, {"STATE_DIRECTORY": "BASE/var"}, "var"),
        (None, {"STATE_DIRECTORY": "BASE/one:BASE/two"}, "one"),
        ("state", {"STATE_DIRECTORY": "BASE/var"}, "state"),
        (None, {}, None),
    ],
)
async def test_the_store_lies_where_it_is_said(
    world: World, directory: str | None, environ: dict[str, str], expected: str | None
) -> None:
    scaling = world.scaling(**{name: value.replace("BASE", str(world.base)) for name, value in environ.items()})
    await scaling.start(scaling.prepare(policy(pool(mode="advise"), directory=directory)))
    assert scaling.store is not None
    assert scaling.store.path == (None if expected is None else world.base / expected / STORE_FILE)
    await world.roots.stop_all()
    await scaling.close()


async def test_a_place_that_cannot_be_is_refused_with_its_name(world: World) -> None:
    (world.base / "taken").write_text("a file")
    scaling = world.scaling()
    with pytest.raises(StartError, match=r"store\.directory: .*taken"):
        await scaling.start(scaling.prepare(policy(pool(), directory="taken")))


async def test_a_reload_keeps_the_hands_of_pools_that_stay_as_they_were(world: World) -> None:
    scaling = world.scaling()
    first = scaling.prepare(policy(pool("a", mode="advise"), pool("b", mode="advise")))
    await scaling.start(first)
    second = scaling.prepare(policy(pool("a", mode="advise"), pool("b", mode="advise", max_replicas=9), pool("c")))
    assert second.hands["a"] is first.hands["a"]
    assert second.hands["b"] is not first.hands["b"]
    await scaling.use(second)
    assert scaling.control is not None
    await scaling.control.tick()
    assert [one["pool"] for one in scaling.pools()] == ["a", "b", "c"]
    await world.roots.stop_all()
    await scaling.close()


async def test_pools_may_come_with_a_reload(world: World) -> None:
    scaling = world.scaling()
    await scaling.start(scaling.prepare(Policy()))
    await scaling.use(scaling.prepare(policy(pool(mode="advise"), directory="state")))
    assert scaling.store is not None
    needed = scaling.restart_needed(scaling.prepare(policy(pool(mode="advise"), directory="elsewhere")))
    assert needed == ["store.directory needs a restart"]
    lease = scaling.prepare(policy(pool(mode="advise"), directory="state", lease={}))
    assert scaling.restart_needed(lease) == ["scaling.lease needs a restart"]
    await world.roots.stop_all()
    await scaling.close()


async def test_a_pool_without_an_actuator_advises_on_the_balancers_own_replicas(world: World) -> None:
    world.gateway.set_source("static", [endpoint_from_url(f"http://10.0.0.{n}:8000", models=("m",)) for n in (1, 2)])
    for id_ in list(world.gateway.balancer.replicas):
        for _ in range(3):
            world.gateway.observe_probe(id_, ProbeResult(ProbeStatus.READY))
    scaling = world.scaling()
    await scaling.start(scaling.prepare(policy(pool(mode="advise", min_replicas=3))))
    assert scaling.control is not None
    tick = await scaling.control.tick()
    assert tick is not None
    assert (tick.decisions[0].ready, tick.decisions[0].desired, tick.actions) == (2, 3, ())
    assert len(world.gateway.endpoints()) == 2, "its replicas stay those of their source"
    found = await scaling.explain("chat", None)
    assert found is not None
    assert "advise only, nothing is done" in str(found["sentence"])
    await world.roots.stop_all()
    await scaling.close()


async def test_a_dry_run_that_owns_its_pool_takes_nothing_from_the_balancer(world: World) -> None:
    world.gateway.set_source("static", [endpoint_from_url(f"http://10.0.0.{n}:8000", models=("m",)) for n in (1, 2)])
    for id_ in list(world.gateway.balancer.replicas):
        for _ in range(3):
            world.gateway.observe_probe(id_, ProbeResult(ProbeStatus.READY))
    scaling = world.scaling()
    await scaling.start(scaling.prepare(policy(pool(down={"hold_s": 0.0, "payback_s": 0.0}))))
    assert scaling.control is not None
    one = scaling.control.controller.pool("chat")
    fleet = (await scaling._hands["chat"].observe()).fleet()  # type: ignore[union-attr]
    drains = one.reconciler.remove(fleet, 1, "less", world.gateway.now())
    done = await scaling.control._acting.carry_out(one.settings, scaling._hands["chat"], drains, (), fleet)
    assert [(type(each.action).__name__, each.error) for each in done] == [("Drain", "")]
    assert {str(replica.state) for replica in world.gateway.balancer.replicas.values()} == {"ready"}
    await world.roots.stop_all()
    await scaling.close()


async def test_utilisation_is_that_of_the_cards_under_the_pool(world: World) -> None:
    scaling = world.scaling()
    on_card = endpoint_from_url("http://10.0.0.1:1", gpu_uuids=("GPU-1", "GPU-unknown"))
    assert scaling._utilization((on_card,)) == 0.5
    assert scaling._utilization((endpoint_from_url("http://10.0.0.1:1"),)) is None


async def test_a_lease_without_a_namespace_is_refused(world: World) -> None:
    scaling = world.scaling()
    with pytest.raises(StartError, match=r"scaling\.lease\.namespace"):
        await scaling.start(scaling.prepare(policy(pool(), directory="state", lease={})))
    assert LeaseSettings() == policy(lease={}).scaling.lease
    await scaling.close()


async def test_a_secret_that_is_not_there_is_refused_before_anything_changes(world: World) -> None:
    scaling = world.scaling()
    hook = {"type": "webhook", "url": "http://127.0.0.1:1/", "token": "env:NOT_SET_ANYWHERE"}
    with pytest.raises(SettingsError, match="NOT_SET_ANYWHERE"):
        scaling.prepare(policy(pool(actuator=hook)))
    assert StoreSettings().directory is None
