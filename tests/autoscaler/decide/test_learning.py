"""Lead times, capacity, margins: what is learned, and from what nothing is learned."""

from __future__ import annotations

import math
import random
from math import inf, nan

import pytest

from autoscaler.decide.capacity import Capacity
from autoscaler.decide.contest import Bounds, Contest
from autoscaler.decide.correction import Correction
from autoscaler.decide.lead_time import LeadTimes, fit, lognormal
from autoscaler.decide.observation import PoolDemand, Quality, read
from autoscaler.decide.outlook import Outlook
from autoscaler.decide.predictors import PREDICTORS
from autoscaler.decide.price import critical_ratio, worthwhile_misses
from autoscaler.decide.spread import Lognormal, Spread
from autoscaler.fleet import Stage


def test_lead_time_follows_what_starts_take() -> None:
    rng = random.Random(1)
    leads = LeadTimes(100.0, 240.0)
    assert leads.total().p50_s == pytest.approx(100.0)
    assert leads.total().p95_s == pytest.approx(240.0)
    for _ in range(60):
        leads.finished(rng.lognormvariate(math.log(300.0), 0.3), {})
    assert leads.total().p50_s == pytest.approx(300.0, rel=0.15)
    assert leads.total().p95_s == pytest.approx(300.0 * math.exp(1.645 * 0.3), rel=0.3)


def test_starts_that_do_not_finish_lengthen_the_lead_time() -> None:
    leads = LeadTimes(100.0, 240.0)
    for _ in range(10):
        leads.finished(100.0, {})
    before = leads.total()
    waiting = leads.total([600.0])
    assert waiting.p95_s > 1.2 * before.p95_s
    assert leads.total([10.0]).p95_s == pytest.approx(before.p95_s), "a young start says nothing"
    leads.given_up(900.0)
    assert leads.total().p95_s > 1.2 * before.p95_s


def test_censoring_finds_the_truth_behind_cut_observations() -> None:
    rng = random.Random(2)
    times = [rng.lognormvariate(math.log(200.0), 0.5) for _ in range(400)]
    cut = 250.0
    seen, censored = [t for t in times if t <= cut], [cut for t in times if t > cut]
    prior = lognormal(100.0, 240.0)
    naive = fit(seen, (), prior)
    right = fit(seen, censored, prior)
    assert naive.p95_s < 0.75 * 200.0 * math.exp(1.645 * 0.5), "ignoring them is much too hopeful"
    assert right.p95_s > 1.3 * naive.p95_s
    assert right.p50_s == pytest.approx(200.0, rel=0.4)


def test_stages_are_learned_apart() -> None:
    leads = LeadTimes(100.0, 240.0)
    for _ in range(5):
        leads.finished(100.0, {Stage.REQUESTED: 0.0, Stage.NODE: 60.0, Stage.WEIGHTS: 90.0, Stage.WARM: 100.0})
    stages = leads.by_stage()
    assert stages[Stage.NODE].p50_s == pytest.approx(60.0, rel=0.05)
    assert stages[Stage.WEIGHTS].p50_s == pytest.approx(30.0, rel=0.05)
    assert Stage.IMAGE not in stages


@pytest.mark.parametrize("time_s", [nan, inf, -1.0, 0.0, 1e9])
def test_impossible_start_up_times_are_not_learned(time_s: float) -> None:
    leads = LeadTimes(100.0, 240.0)
    leads.finished(time_s, {Stage.NODE: nan})
    leads.given_up(-5.0)
    assert leads.total().p50_s == pytest.approx(100.0)
    leads.restore({"totals": [time_s, "x", None, 50.0], "stages": 7})
    assert leads.total().count == 1


def test_lead_times_survive_a_restart() -> None:
    leads = LeadTimes(100.0, 240.0)
    for _ in range(20):
        leads.finished(300.0, {Stage.REQUESTED: 0.0, Stage.NODE: 200.0})
    again = LeadTimes(100.0, 240.0)
    again.restore(leads.state())
    assert again.total() == leads.total()
    assert again.by_stage() == leads.by_stage()


def test_capacity_is_learned_from_saturation_and_only_from_it() -> None:
    capacity = Capacity(2.0, 20.0)
    for tick in range(400):
        capacity.observe(8.0, 4.0, 0.0, True, 15.0 * tick)
    assert capacity.per_replica == pytest.approx(2.0), "missing without a queue proves nothing"
    for tick in range(400, 1200):
        capacity.observe(12.0, 4.0, 50.0, True, 15.0 * tick)
    assert capacity.per_replica == pytest.approx(3.0 * 0.97, rel=0.1)


def test_capacity_that_was_proven_is_believed() -> None:
    capacity = Capacity(1.0, 20.0)
    for tick in range(100):
        capacity.observe(8.0, 4.0, 0.0, False, 15.0 * tick)
    assert capacity.per_replica == pytest.approx(2.0, rel=0.05)


def test_capacity_is_unknown_until_something_is_seen() -> None:
    capacity = Capacity(None, 20.0)
    assert capacity.per_replica is None
    capacity.hint(nan)
    capacity.hint(-1.0)
    assert capacity.per_replica is None
    capacity.hint(1.5)
    assert capacity.per_replica == 1.5
    capacity.observe(nan, 4.0, 1.0, True, 0.0)
    assert capacity.per_replica == 1.5


def test_prices_give_the_quantile() -> None:
    assert critical_ratio(2.0, 1.0, 1.0) == pytest.approx(3600.0 / 3602.0)
    assert critical_ratio(2.0, 0.0, 1.0) == 0.0
    assert worthwhile_misses(3.6, 0.01, 3.0) == pytest.approx(3.6 / (108.0 + 3.6))


@pytest.mark.parametrize(
    ("value", "age", "quality"),
    [
        (1.0, 1.0, Quality.OK), (None, 1.0, Quality.MISSING), (nan, 1.0, Quality.INVALID), (inf, 1.0, Quality.INVALID),
        (-1.0, 1.0, Quality.INVALID), (1e308, 1.0, Quality.INVALID), (1.0, 61.0, Quality.STALE),
        (1.0, -3600.0, Quality.INVALID),
    ],
)  # fmt: skip
def test_readings_are_judged(value: float | None, age: float, quality: Quality) -> None:
    reading = read(PoolDemand(at=1000.0 - age, requests_per_s=value), "requests", 1000.0, 60.0)
    assert reading.bad.get("requests_per_s", Quality.OK) is quality
    assert (reading.units_per_s is not None) is (quality is Quality.OK)


def test_an_outlook_is_read_between_its_points() -> None:
    outlook = Outlook(100.0, (60.0, 120.0), (0.5, 0.9), ((10.0, 20.0), (20.0, 40.0)))
    assert outlook.valid()
    assert outlook.at(60.0, 0.5, 100.0) == 10.0
    assert outlook.at(60.0, 0.5, 130.0) == pytest.approx(15.0)
    assert outlook.at(600.0, 0.9, 100.0) == 40.0
    assert 20.0 < outlook.at(60.0, 0.99, 100.0) < 40.0
    assert outlook.reach(150.0) == 70.0
    assert not Outlook(0.0, (60.0,), (0.5,), ((nan,),)).valid()
    assert not Outlook(0.0, (60.0,), (0.5, 0.9), ((1.0,),)).valid()


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_predictors_are_sane_on_constant_zero_and_wild_demand(name: str) -> None:
    for rates in ([5.0] * 500, [0.0] * 500, [0.0, 1e9] * 250):
        predictor = PREDICTORS[name]()
        for tick, rate in enumerate(rates):
            predictor.observe(rate, 15.0 * tick)
            expectation = predictor.expect(15.0 * tick, 120.0)
            assert expectation is not None
            low, high = expectation.level(0.0), expectation.level(2.0)
            assert 0.0 <= low <= high < 1e12
        if rates[0] == 5.0:
            assert low == pytest.approx(5.0, rel=0.05)


def test_momentum_learns_that_demand_goes_on() -> None:
    """A slow sine: whoever knows that what rises goes on rising is nearer to what comes than the last value."""
    errors: dict[str, float] = {}
    for name in ("momentum", "last_value"):
        predictor = PREDICTORS[name]()
        rates = [100.0 + 60.0 * math.sin(tick / 60.0) for tick in range(8000)]
        total = 0.0
        for tick, rate in enumerate(rates[:-20]):
            predictor.observe(rate, 15.0 * tick)
            expectation = predictor.expect(15.0 * tick, 300.0)
            assert expectation is not None
            if tick > 4000:
                total += abs(expectation.level(0.0) - rates[tick + 20])
        errors[name] = total
    assert errors["momentum"] < 0.4 * errors["last_value"]


def test_the_spread_is_that_of_the_errors() -> None:
    rng, spread = random.Random(3), Spread()
    for tick in range(20_000):
        spread.actual(math.exp(rng.gauss(0.0, 0.3)), 15.0 * tick)
        spread.predicted(0.0, 15.0 * tick, 60.0)
    assert spread.sigma == pytest.approx(0.3, rel=0.15)


BOUNDS = Bounds(
    least=1, most=50, hold_s=300.0, payback_s=0.0, lead_s=120.0, inertia_s=60.0, settle_s=0.0, objective=0.01
)


def test_the_contest_prefers_who_knows_what_comes() -> None:
    """Demand steps every ten minutes; the forecast knows the step in advance, the last value does not."""
    rng = random.Random(4)
    levels = [rng.uniform(5.0, 20.0) for _ in range(600)]
    contest = Contest(("last_value", "forecast"), 7 * 86_400.0)
    for tick in range(40 * 590):
        now = 15.0 * tick
        rate, ahead = levels[tick // 40], levels[(tick + 12) // 40]
        known = max(rate, ahead)
        views = {"last_value": Lognormal(math.log(rate), 0.3), "forecast": Lognormal(math.log(known), 0.1)}
        contest.observe(rate, 1.0, views, 0.01, now, BOUNDS)
    assert contest.chosen == "forecast"
    assert contest.standings["forecast"].replica_hours < 0.9 * contest.standings["last_value"].replica_hours


def test_the_contest_ignores_a_forecast_that_is_worth_nothing() -> None:
    rng = random.Random(5)
    contest = Contest(("last_value", "forecast"), 7 * 86_400.0)
    for tick in range(10_000):
        rate = 10.0 + 3.0 * math.sin(tick / 200.0)
        wild = Lognormal(math.log(10.0 * math.exp(rng.gauss(0.0, 0.5))), 0.5)
        contest.observe(
            rate, 1.0, {"last_value": Lognormal(math.log(rate), 0.05), "forecast": wild}, 0.01, 15.0 * tick, BOUNDS
        )
    assert contest.chosen == "last_value"
    again = Contest(("last_value", "forecast"), 7 * 86_400.0)
    again.restore(contest.state())
    assert again.state() == contest.state()
    again.restore({"offered": nan, "seconds": 1.0, "rows": {}})
    assert again.state() == contest.state()


def test_the_correction_steers_misses_to_the_objective() -> None:
    """Whatever the map from margin to misses, their long-run share is the objective's."""
    rng = random.Random(6)
    correction = Correction()
    offered = missed = 0.0
    shares = []
    for tick in range(200_000):
        share = 0.3 if rng.random() < 0.05 * math.exp(-3.0 * correction.offset) else 0.0
        offered, missed = offered + 100.0, missed + 100.0 * share
        shares.append(share)
        reading = read(
            PoolDemand(at=15.0 * tick, offered_total=offered, missed_total=missed), "requests", 15.0 * tick, 60.0
        )
        correction.observe(reading, 0.008, 15.0 * tick)
    assert sum(shares[40_000:]) / len(shares[40_000:]) == pytest.approx(0.008, rel=0.15)


def test_the_correction_survives_a_counter_reset() -> None:
    correction = Correction()
    for tick, total in enumerate((1000.0, 1100.0, 5.0, 100.0)):
        reading = read(
            PoolDemand(at=15.0 * tick, offered_total=total, missed_total=total / 2), "requests", 15.0 * tick, 60.0
        )
        correction.observe(reading, 0.01, 15.0 * tick)
    assert 0.0 < correction.offset < 0.02
    correction.restore(nan)
    assert math.isfinite(correction.offset)
