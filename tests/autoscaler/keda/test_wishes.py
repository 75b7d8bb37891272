"""Which decisions KEDA may carry out."""

from __future__ import annotations

import pytest

from autoscaler.keda.wish import Wish
from autoscaler.loops.wishes import wishes_of
from autoscaler.policy.pools import PoolSettings
from autoscaler.store import StoredDecision


def wish(now: float, mode: str = "advise", **fields: object) -> Wish:
    record = {"at": 100.0, "desired": 4, "binding": "predictive", "reason": "why", "demand": 2.5, **fields}
    pool = PoolSettings.model_validate({"name": "chat", "mode": mode})
    return wishes_of([pool], {"chat": StoredDecision("chat", 1e9, "", record)}, now=now, interval_s=15.0)["chat"]


def test_a_fresh_decision_of_an_advised_pool_is_a_wish() -> None:
    assert wish(100.0) == Wish(4)
    assert wish(145.0) == Wish(4), "three ticks"
    assert wish(100.0, desired=0, demand=0.0) == Wish(0), "no demand is a fact"


def test_an_old_decision_is_none() -> None:
    assert wish(145.1).problem == "the last decision is 45 s old; the controller hangs, or another one leads"


@pytest.mark.parametrize("mode", ["observe", "own"])
def test_only_an_advised_pool_is_for_others(mode: str) -> None:
    assert f"in mode {mode}" in wish(100.0, mode).problem


def test_what_is_not_seen_is_not_told() -> None:
    unseen = wish(100.0, binding="fleet", desired=0, reason="the fleet is not known")
    assert unseen.problem == "its replicas cannot be seen: the fleet is not known"
    assert wish(100.0, demand=None).problem == "its demand is not known"
    pool = PoolSettings(name="new")
    assert wishes_of([pool], {}, now=0.0, interval_s=15.0)["new"].problem == "nothing has been decided yet"
