"""`dry_run` touches nothing and says what it would have done."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from autoscaler.action import Drain, GiveUp, Stop, Undrain
from autoscaler.actuator import Observed
from autoscaler.actuators import Surroundings, build_actuator
from autoscaler.actuators.dry_run import DryRun
from autoscaler.fleet import Phase, ReplicaFact
from autoscaler.policy.pools import PoolSettings
from tests.autoscaler.actuators.worlds import POOL, up


async def test_it_is_the_default_and_tells_what_the_balancer_reports(tmp_path: Path) -> None:
    replica = Observed(ReplicaFact("r1", Phase.READY))
    around = Surroundings(tmp_path, reported=lambda pool: [replica] if pool.name == POOL else [])
    actuator = build_actuator(PoolSettings(name=POOL), around)
    seen = await actuator.observe()
    assert seen.replicas == (replica,)
    assert seen.complete
    assert (await build_actuator(PoolSettings(name="other"), around).observe()).replicas == ()


async def test_every_action_is_remembered_and_said_and_nothing_else_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    around = Surroundings(tmp_path / "state")
    actuator = build_actuator(PoolSettings(name=POOL), around)
    assert isinstance(actuator, DryRun)
    actions = [
        up("a", "b"), Drain(POOL, "a", 60.0, "night"), Undrain(POOL, "a", "day"), Stop(POOL, "a", 1, "drained"),
        GiveUp(POOL, "b", None, 0, "late"),
    ]  # fmt: skip
    with caplog.at_level(logging.INFO):
        for action in actions:
            await actuator.apply(action)
    assert list(actuator.actions) == actions
    assert caplog.messages == [
        "pool chat: would start a, b (good), because demand",
        "pool chat: would drain a for at most 60 s, because night",
        "pool chat: would take a back, because day",
        "pool chat: would stop a, because drained",
        "pool chat: would give up the start of b, because late",
    ]
    assert (await actuator.observe()).replicas == ()
    assert not around.state_directory.exists()
    await actuator.close()
