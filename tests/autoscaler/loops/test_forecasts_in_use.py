"""From stored history through a real process to a decision, its record, its metrics, and an end without orphans."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from autoscaler.decide.outlook import Outlook
from autoscaler.loops.scaling import STORE_FILE, Scaling
from autoscaler.metrics import ControlMetrics, ForecastMetrics
from autoscaler.policy.schema import Policy
from autoscaler.roots import RootTasks
from autoscaler.store import Bin, Store
from lb.clock import SYSTEM_CLOCK, Clock
from lb.gateway import Gateway
from lb.settings import LbSettings
from nvml.sample import NodeSnapshot
from tests.autoscaler.loops.test_forecast_process import gone

DAYS = 2


class World:
    """A controller on a directory in which two days of demand are known."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.registry = CollectorRegistry()
        self.roots = RootTasks()
        loop = asyncio.get_running_loop()
        self.gateway = Gateway(LbSettings(), loop, random.Random(1))
        self.scaling = Scaling(
            self.gateway, Clock(loop.time, SYSTEM_CLOCK.wall), ControlMetrics(self.registry), self.roots, base=base,
            environ={"HOME": str(base)}, gpus=lambda: NodeSnapshot(taken_at=0.0, gpus=()),
        )  # fmt: skip
        ForecastMetrics(self.registry, self.scaling.forecast_states, lambda: self.scaling.forecast_restarts)

    async def remember(self) -> None:
        """Requests with a daily shape: 60 a minute in the mean, and noise."""
        store = Store(self.base / STORE_FILE, wall=time.time)
        await store.start()
        end = int(time.time() // 60) * 60
        noise = random.Random(2)
        store.record_bins(
            Bin("m", start, max(0.0, noise.gauss(60.0 + 30.0 * math.sin(start / 86_400 * 2 * math.pi), 6.0)), 1.0, 1.0)
            for start in range(end - DAYS * 86_400, end, 60)
        )
        await store.close()

    def policy(self, **more: Any) -> Policy:
        pool = {"name": "chat", "models": ["m"], "mode": "advise", "capacity": {"per_replica": 1.0}}
        fields = {"scaling": {"interval_s": 1.0, "pools": [pool]}, "store": {"directory": "."}, **more}
        return Policy.model_validate(fields)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"pool": "chat", **labels})

    async def forecast(self, other_than: Outlook | None = None) -> Outlook:
        """The first one, or the first after this one."""
        forecasts = self.scaling.forecasts
        assert forecasts is not None
        for _ in range(1200):
            outlook = forecasts.outlooks()["chat"]
            assert not self.scaling.forecast_states()[0].failures, outlook.reason
            if outlook.valid() and outlook != other_than:
                return outlook
            await asyncio.sleep(0.05)
        raise AssertionError(f"no forecast within a minute: {outlook.reason}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    await one.remember()
    yield one
    await one.roots.stop_all()
    await one.scaling.close()
    one.gateway.close()


async def test_a_forecast_reaches_the_decision_its_record_and_the_metrics(world: World) -> None:
    await world.scaling.start(world.scaling.prepare(world.policy()))
    outlook = await world.forecast()
    assert world.scaling.control is not None
    middle = outlook.at(600.0, 0.5, asyncio.get_running_loop().time())
    expected = 1.0 + 0.5 * math.sin((time.time() + 600.0) / 86_400 * 2 * math.pi)
    assert middle == pytest.approx(expected, abs=0.1), "requests a second"
    await world.scaling.control.tick()
    record = world.scaling.pools()[0]["record"]
    assert isinstance(record, dict)
    forecast = record["forecast"]
    assert (forecast["trusted"], forecast["reason"]) == (outlook.trusted, outlook.reason)
    row = [
        world.value("tidegate_forecast_demand_per_second", horizon="300", quantile=level)
        for level in ("0.5", "0.9", "0.95", "0.99")
    ]
    assert tuple(row) == pytest.approx(outlook.values[0])
    assert world.value("tidegate_forecast_coverage_ratio", quantile="0.9") == pytest.approx(0.9, abs=0.1)
    assert world.value("tidegate_pool_forecast_trusted") == float(outlook.trusted)
    assert 0.0 < (world.value("tidegate_forecast_age_seconds") or 0.0) < 600.0
    assert (world.value("tidegate_forecast_fit_seconds") or 0.0) > 0.0
    assert 0.0 < (world.value("tidegate_forecast_loss_ratio") or 0.0) < 1.0
    assert world.value("tidegate_forecast_failures_total") == 0.0
    assert world.registry.get_sample_value("tidegate_forecast_process_restarts_total") == 0.0


async def test_a_reload_makes_another_process_and_the_end_leaves_none(world: World) -> None:
    await world.scaling.start(world.scaling.prepare(world.policy()))
    before = await world.forecast()
    forecasts = world.scaling.forecasts
    assert forecasts is not None
    assert forecasts._process is not None
    first = forecasts._process.pid
    start = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() - 60.0))
    event = f"{start} for 6h, x3, launch"
    await world.scaling.use(world.scaling.prepare(world.policy(events=[event])))
    launched = await world.forecast(other_than=before)
    assert gone(first)
    second = forecasts._process.pid
    assert launched.values[-1][0] == pytest.approx(3 * before.values[-1][0], rel=0.2)
    off = world.policy(forecast={"enabled": False})
    await world.roots.stop_all()
    assert gone(second), "the end of the task is that of the process"
    await world.scaling.use(world.scaling.prepare(off))
    assert dict(forecasts.outlooks()) == {}
    assert world.value("tidegate_forecast_age_seconds") is None
