"""Recommenders, combination and limits: what is decided, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from math import nan
from typing import Any

import pytest

from autoscaler.action import Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.controller import Controller, Tick
from autoscaler.decide.budget import Spent, refusal
from autoscaler.decide.mix import additions, units
from autoscaler.decide.observation import PoolDemand
from autoscaler.decide.outlook import Outlook
from autoscaler.decide.recommenders import RECOMMENDERS
from autoscaler.fleet import Phase, PoolFleet, ReplicaFact
from autoscaler.policy.pools import (
    BudgetSettings,
    CapacitySettings,
    DownSettings,
    KindSettings,
    Mode,
    PoolSettings,
    ReactiveRule,
    ScalingSettings,
    ScheduleEntry,
)


def pool(**changes: Any) -> PoolSettings:
    base: dict[str, Any] = {
        "name": "chat", "mode": Mode.OWN, "min_replicas": 1, "max_replicas": 20,
        "capacity": CapacitySettings(per_replica=1.0), "down": DownSettings(hold_s=60.0, payback_s=0.0),
    }  # fmt: skip
    return PoolSettings(**{**base, **changes})


def ready(count: int, **changes: Any) -> list[ReplicaFact]:
    return [ReplicaFact(f"r{index}", Phase.READY, in_flight=index, **changes) for index in range(count)]


class Bench:
    """A controller of one pool, ticked every 15 s."""

    def __init__(self, settings: PoolSettings, budget: BudgetSettings | None = None) -> None:
        self.controller = Controller(ScalingSettings(pools=(settings,), budget=budget or BudgetSettings()))
        self.name = settings.name
        self.now = 10_000.0

    def tick(
        self, replicas: list[ReplicaFact] | None, rate: float | None, outlook: Outlook | None = None, *,
        seconds: float = 15.0, wall: float | None = None, complete: bool = True, **numbers: Any,
    ) -> Tick:  # fmt: skip
        self.now += seconds
        fleet = {} if replicas is None else {self.name: PoolFleet(self.now, tuple(replicas), complete)}
        known = {"backlog_s": 1.0, "queued": 0.0, "in_flight": 10.0, **numbers}
        demand = {} if rate is None else {self.name: PoolDemand(at=self.now, requests_per_s=rate, **known)}
        forecast = {} if outlook is None else {self.name: outlook}
        return self.controller.tick(fleet, demand, forecast, now=self.now, wall=wall)

    def settle(self, replicas: list[ReplicaFact], rate: float, ticks: int = 12, **numbers: Any) -> Tick:
        for _ in range(ticks):
            last = self.tick(replicas, rate, **numbers)
        return last


def starts(tick: Tick) -> int:
    return sum(len(one.start_ids) for one in tick.actions if isinstance(one, ScaleUp))


def test_more_demand_starts_replicas_at_once_and_says_why() -> None:
    tick = Bench(pool()).tick(ready(3), 8.0)
    assert starts(tick) >= 5
    assert tick.decisions[0].binding == "predictive"
    assert "chat: up 3 -> " in tick.sentence
    assert "8/s" in tick.sentence


def test_pending_replicas_are_supply() -> None:
    bench = Bench(pool())
    first = bench.tick(ready(3), 8.0)
    asked = [start for one in first.actions if isinstance(one, ScaleUp) for start in one.start_ids]
    pending = [ReplicaFact(f"p{n}", Phase.STARTING, start_id=start) for n, start in enumerate(asked)]
    for facts in (ready(3), ready(3) + pending):
        again = bench.tick(facts, 8.0)
        assert starts(again) == 0, "what was asked for is on its way"
        assert again.decisions[0].supply == first.decisions[0].desired


def test_capacity_goes_only_when_all_agreed_for_the_hold_time() -> None:
    bench = Bench(pool())
    ticks = [bench.tick(ready(8), 2.0) for _ in range(8)]
    lowered = [index for index, tick in enumerate(ticks) if any(isinstance(one, Drain) for one in tick.actions)]
    assert lowered
    assert lowered[0] >= 4, "60 s of agreement are four ticks"
    assert ticks[0].decisions[0].binding == "hold"


@pytest.mark.parametrize(
    ("rate", "numbers"),
    [(None, {}), (nan, {}), (-1.0, {}), (1e308, {}), (2.0, {"backlog_s": nan}), (2.0, {"backlog_s": None})],
)
def test_nothing_is_lowered_on_ignorance(rate: float | None, numbers: dict[str, Any]) -> None:
    bench = Bench(pool())
    for _ in range(100):
        tick = bench.tick(ready(8), rate, **numbers)
        assert not tick.actions
        assert tick.decisions[0].desired == 8


def test_a_stale_reading_holds_and_is_reported_in_the_end() -> None:
    bench = Bench(pool())
    bench.settle(ready(8), 5.0, 2)
    for _ in range(80):
        tick = bench.tick(ready(8), None)
    assert tick.decisions[0].desired == 8
    assert "demand has not been known" in tick.decisions[0].fault
    assert "FAULT" in tick.sentence


def test_blind_to_demand_a_trusted_forecast_may_still_raise() -> None:
    bench = Bench(pool())
    bench.settle(ready(8), 7.0)
    outlook = Outlook(bench.now, (60.0, 3600.0), (0.5, 0.9), ((12.0, 14.0), (12.0, 14.0)))
    tick = bench.tick(ready(8), None, outlook)
    assert starts(tick) > 0
    assert not any(isinstance(one, Drain) for one in tick.actions)
    distrusted = replace(outlook, trusted=False)
    assert not Bench(pool()).tick(ready(8), None, distrusted).actions


def test_no_action_on_a_fleet_that_is_not_seen() -> None:
    bench = Bench(pool())
    bench.settle(ready(8), 8.0)
    assert not bench.tick(None, 50.0).actions
    assert not Bench(pool()).tick(ready(2), 50.0, complete=False).actions, "never seen whole"


def test_the_forecast_keeps_what_will_be_wanted_soon() -> None:
    def lowered(outlook: Outlook | None) -> bool:
        bench = Bench(pool())
        predictive = bench.controller.pool("chat").predictive
        predictive.contest._chosen, predictive.contest._judged_at = "forecast", float("inf")
        done = [bench.tick(ready(5), 2.0, outlook and replace(outlook, made_at=bench.now)) for _ in range(12)]
        return any(isinstance(one, Drain) for tick in done for one in tick.actions)

    low = Outlook(0.0, (60.0, 240.0, 7200.0), (0.5, 0.9), ((2.0, 2.2), (2.0, 2.2), (2.0, 2.2)))
    assert lowered(low)
    assert not lowered(replace(low, values=((2.0, 2.2), (4.9, 5.2), (4.9, 5.2))))


def test_i14_a_forecast_that_says_down_does_not_hold_back_a_rule_that_says_up() -> None:
    def desired(values: float, kv_usage: float) -> int:
        bench = Bench(pool(rules=[{"signal": "kv_usage", "above": 0.9, "duration": 30.0}]))
        bench.settle(ready(4), 3.0)
        predictive = bench.controller.pool("chat").predictive
        predictive.contest._chosen, predictive.contest._judged_at = "forecast", float("inf")
        low = Outlook(bench.now, (60.0, 7200.0), (0.5, 0.9), ((values, values), (values, values)))
        made = [bench.tick(ready(4), 3.0, replace(low, made_at=bench.now), kv_usage=kv_usage) for _ in range(6)]
        return max(tick.decisions[0].desired for tick in made)

    assert desired(0.5, 0.97) > 4, "the rule wins"
    assert desired(0.5, 0.2) == 4


def test_a_poisoned_forecast_is_capped() -> None:
    bench = Bench(pool(max_replicas=1000))
    bench.settle(ready(8), 7.0)
    bench.controller.pool("chat").predictive.contest._chosen = "forecast"
    wild = Outlook(bench.now, (60.0, 3600.0), (0.5, 0.9), ((1e9, 1e9), (1e9, 1e9)))
    assert bench.tick(ready(8), 7.0, wild).decisions[0].desired <= 21


def test_the_step_down_that_would_miss_the_objective_is_not_taken() -> None:
    bench = Bench(pool(predictive={"quantile": 0.001}))
    tick = bench.settle(ready(8), 7.5)
    assert tick.decisions[0].binding in ("objective", "predictive")
    assert tick.decisions[0].desired == 8


@pytest.mark.parametrize("mode", [Mode.ADVISE, Mode.OBSERVE])
def test_without_ownership_nothing_is_done(mode: Mode) -> None:
    tick = Bench(pool(mode=mode)).tick(ready(3), 8.0)
    assert not tick.actions
    assert tick.decisions[0].desired > 3
    assert "nothing is done" in tick.sentence


def test_reactive_rule_fires_after_its_time_and_agrees_below() -> None:
    rule = ReactiveRule(signal="gpu_utilization", above=0.8, duration_s=30.0)
    bench = Bench(pool(rules=(rule,), predictive={"enabled": False}))
    wants = [bench.tick(ready(4), 1.0, gpu_utilization=0.95).decisions[0].desired for _ in range(3)]
    assert wants == [4, 4, 5]
    tick = bench.settle(ready(4), 1.0, gpu_utilization=0.2)
    assert tick.decisions[0].desired < 4


def test_a_rule_whose_signal_is_gone_holds_for_a_bounded_time() -> None:
    rule = ReactiveRule(signal="kv_usage", above=0.8)
    bench = Bench(pool(rules=(rule,)))
    assert bench.settle(ready(8), 2.0, 30).decisions[0].desired == 8
    assert bench.settle(ready(8), 2.0, 60).decisions[0].desired < 8


def test_saturation_asks_for_more() -> None:
    bench = Bench(pool(predictive={"enabled": False}, backlog_s=30.0))
    tick = bench.tick(ready(4), 1.0, backlog_s=45.0)
    assert tick.decisions[0].desired == 6
    assert tick.decisions[0].binding == "saturation"


def test_the_first_replica_comes_for_requests_that_wait() -> None:
    tick = Bench(pool(min_replicas=0)).tick([], 0.0, held=2.0, backlog_s=None)
    assert starts(tick) == 1


def test_the_schedule_counts_from_a_lead_time_before() -> None:
    entry = ScheduleEntry(days=("mon",), start="09:00", end="17:00", zone="Europe/Berlin", replicas=6)
    nine = datetime(2024, 1, 8, 8, 0, tzinfo=UTC).timestamp()
    for wall, wanted in ((nine - 200.0, 6), (nine - 3600.0, 2), (nine + 8 * 3600.0 - 1.0, 6), (nine + 86_400.0, 2)):
        tick = Bench(pool(schedule=(entry,), min_replicas=2)).tick(ready(2), 0.5, wall=wall)
        assert tick.decisions[0].desired == wanted, wall


def test_the_schedule_follows_a_clock_change() -> None:
    entry = ScheduleEntry(start="09:00", end="10:00", zone="Europe/Berlin", replicas=6)
    for day, hour in ((30, 8), (31, 7)):
        wall = datetime(2024, 3, day, hour, 5, tzinfo=UTC).timestamp()
        assert Bench(pool(schedule=(entry,))).tick(ready(1), 0.1, wall=wall).decisions[0].desired == 6


def test_limits_bind_and_are_named() -> None:
    assert Bench(pool(max_replicas=4)).tick(ready(3), 50.0).decisions[0].binding == "max"
    stepped = Bench(pool(rate={"up_step": 2})).tick(ready(3), 10.0)
    assert starts(stepped) == 2
    assert stepped.decisions[0].binding == "step"
    bench = Bench(pool(rate={"up": 3}))
    assert starts(bench.tick(ready(3), 10.0)) == 3
    assert bench.tick(ready(3), 18.0).decisions[0].binding == "rate"


def test_budgets_are_spent_by_priority() -> None:
    pools = (pool(name="late", priority=5), pool(name="first", priority=0))
    controller = Controller(ScalingSettings(pools=pools, budget=BudgetSettings(gpus=8)))
    fleet = {name: PoolFleet(100.0, tuple(ready(2))) for name in ("late", "first")}
    demand = {name: PoolDemand(at=100.0, requests_per_s=5.0, backlog_s=1.0) for name in ("late", "first")}
    tick = controller.tick(fleet, demand, now=100.0)
    late, first = tick.decisions
    assert first.desired == 6
    assert late.desired == 2
    assert late.binding == "budget of 8 GPUs"


@pytest.mark.parametrize(
    ("budget", "says"),
    [({"gpus": 2}, "GPUs"), ({"money_per_hour": 5.0}, "an hour"), ({"watts": 1500.0}, "W")],
)
def test_each_budget_refuses(budget: dict[str, Any], says: str) -> None:
    spent = Spent()
    kind = KindSettings()
    settings = BudgetSettings(**budget)
    for _ in range(2):
        assert refusal(settings, spent, kind) == ""
        spent.add(kind)
    assert says in refusal(settings, spent, kind)


def test_the_cheapest_capacity_is_taken_first() -> None:
    small = KindSettings(name="small", gpu_hour=2.0, speed=1.0)
    large = KindSettings(name="large", gpu_hour=3.0, speed=2.0, max_replicas=1)
    spot = KindSettings(name="spot", gpu_hour=0.5, spot=True, reclaims_per_day=24.0)
    leads = {"small": 100.0, "large": 100.0, "spot": 360.0}
    assert units(spot, 360.0) == pytest.approx(0.9)
    names = [kind.name for kind in additions((small, large, spot), {}, 6.0, leads, frozenset(), 0.4)]
    assert names.count("spot") == 2
    assert names.count("large") == 1
    assert names.count("small") == 3
    blocked = additions((small, large), {}, 3.0, leads, frozenset({"large"}), 1.0)
    assert {kind.name for kind in blocked} == {"small"}


def test_somebody_elses_number_is_left_alone_for_a_while() -> None:
    bench = Bench(pool(human_s=600.0))
    fleet = PoolFleet(10_015.0, tuple(ready(3)), wanted_by_others=3)
    tick = bench.controller.tick(
        {"chat": fleet}, {"chat": PoolDemand(at=10_015.0, requests_per_s=9.0, backlog_s=1.0)}, now=10_015.0
    )
    assert not tick.actions
    assert tick.decisions[0].binding == "others"
    later = replace(fleet, at=10_700.0)
    tick = bench.controller.tick(
        {"chat": later}, {"chat": PoolDemand(at=10_700.0, requests_per_s=9.0, backlog_s=1.0)}, now=10_700.0
    )
    assert starts(tick) > 0


def test_the_victim_has_least_to_do_and_leaves_step_by_step() -> None:
    bench = Bench(pool())
    busy = [
        ReplicaFact("a", Phase.READY, in_flight=9, work_left_s=90.0),
        ReplicaFact("b", Phase.READY, in_flight=1, work_left_s=2.0, cache_value=50.0),
        ReplicaFact("c", Phase.READY, in_flight=1, work_left_s=2.0, cache_value=5.0),
        ReplicaFact("d", Phase.READY, in_flight=0, work_left_s=0.0, protected=True),
    ]
    drained: list[str] = []
    for _ in range(12):
        drained += [one.replica for one in bench.tick(busy, 1.6).actions if isinstance(one, Drain)]
    assert drained[0] == "c"
    leaving = [replace(one, phase=Phase.DRAINING) if one.id == "c" else one for one in busy]
    assert not any(isinstance(one, Stop) for one in bench.tick(leaving, 1.6).actions), "a request still runs"
    empty = [replace(one, in_flight=0) if one.id == "c" else one for one in leaving]
    stops = [one for one in bench.tick(empty, 1.6).actions if isinstance(one, Stop)]
    assert [one.replica for one in stops] == ["c"]


def test_a_drain_that_does_not_end_waits_and_is_reported() -> None:
    bench = Bench(pool(down=DownSettings(hold_s=0.0, payback_s=0.0, drain_s=30.0)))
    for _ in range(3):
        tick = bench.tick(ready(3), 0.5)
    victims = {one.replica for one in tick.actions if isinstance(one, Drain)} or set(
        bench.controller.pool("chat").reconciler.draining.until
    )
    stuck = [replace(one, phase=Phase.DRAINING, in_flight=4) if one.id in victims else one for one in ready(3)]
    for _ in range(10):
        tick = bench.tick(stuck, 0.5)
    assert not any(isinstance(one, Stop) for one in tick.actions)
    assert "does not finish its drain" in tick.decisions[0].fault


def test_what_was_asked_for_has_two_lead_times_to_be_worth_it() -> None:
    bench = Bench(pool(down=DownSettings(hold_s=30.0, payback_s=30.0), start={"p50_s": 100.0, "p95_s": 240.0}))
    assert starts(bench.tick(ready(3), 8.0))
    asked = bench.now
    went = [tick for tick in (bench.tick(ready(12), 2.0) for _ in range(40)) if tick.decisions[0].change < 0]
    assert went[0].decisions[0].at - asked == pytest.approx(200.0, abs=15.0)


def test_a_draining_replica_that_is_wanted_again_comes_back() -> None:
    bench = Bench(pool())
    bench.settle(ready(4), 1.0)
    leaving = set(bench.controller.pool("chat").reconciler.draining.until)
    assert leaving
    facts = [replace(one, phase=Phase.DRAINING, in_flight=3) if one.id in leaving else one for one in ready(4)]
    tick = bench.tick(facts, 3.0)
    assert {one.replica for one in tick.actions if isinstance(one, Undrain)} == leaving


def test_a_late_start_is_given_up_and_its_kind_rests() -> None:
    bench = Bench(pool(start={"give_up_s": 100.0, "failures": 1, "p50_s": 10.0, "p95_s": 20.0}, max_replicas=4))
    first = bench.tick(ready(3), 6.0)
    (asked,) = [one for one in first.actions if isinstance(one, ScaleUp)]
    hung = [*ready(3), ReplicaFact("p", Phase.STARTING, start_id=asked.start_ids[0])]
    later = bench.tick(hung, 6.0, seconds=200.0)
    assert [one.replica for one in later.actions if isinstance(one, GiveUp)] == ["p"]
    assert starts(later) == 0
    assert "keeps failing" in later.decisions[0].fault


def test_a_start_that_nobody_saw_is_asked_for_again_by_the_same_name() -> None:
    bench = Bench(pool())
    first = [one for one in bench.tick(ready(3), 4.0).actions if isinstance(one, ScaleUp)]
    again = [one for one in bench.tick(ready(3), 4.0, seconds=130.0).actions if isinstance(one, ScaleUp)]
    assert {name for one in again for name in one.start_ids} == {name for one in first for name in one.start_ids}


def test_a_failed_replica_is_stopped() -> None:
    tick = Bench(pool()).tick([*ready(3), ReplicaFact("x", Phase.FAILED)], 2.0)
    assert [one.replica for one in tick.actions if isinstance(one, Stop)] == ["x"]


def test_memory_survives_a_restart() -> None:
    bench = Bench(pool())
    bench.settle(ready(8), 5.0, 30)
    state = bench.controller.state()
    again = Controller(bench.controller.settings)
    again.restore(state)
    assert again.state() == state
    again.restore({"chat": {"starts": 3, "capacity": {"sum": nan}, "predictive": None}, "gone": {}})
    assert again.state() == state


def test_a_new_policy_keeps_what_was_learned() -> None:
    bench = Bench(pool())
    bench.settle(ready(8), 5.0, 30)
    before = bench.controller.state()["chat"]
    bench.controller.reconfigure(ScalingSettings(pools=(pool(max_replicas=30), pool(name="new"))))
    assert bench.controller.state()["chat"] == before
    assert bench.controller.pool("chat").settings.max_replicas == 30


def test_every_source_is_in_the_record() -> None:
    record = Bench(pool()).tick(ready(3), 8.0).decisions[0].record()
    proposals = record["proposals"]
    assert isinstance(proposals, tuple | list)
    assert [one["source"] for one in proposals] == list(RECOMMENDERS)
    assert record["lead_p95_s"] == pytest.approx(240.0)
    assert record["cost_per_hour"] > 0.0  # type: ignore[operator]
