"""Forecasts for the played days: made once, from the past alone, in the unit and time of the plant."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.decide.outlook import Outlook
from autoscaler.sim.fast import FastEngine
from autoscaler.sim.outlooks import Outlooks
from autoscaler.sim.policies.setting import Setting
from autoscaler.sim.policies.tidegate import Tidegate, pool_settings
from autoscaler.sim.pool_model import plain
from autoscaler.sim.replica_model import ReplicaModel
from autoscaler.sim.start_up import SCENARIOS
from autoscaler.sim.workload import Lengths, load_of
from forecaster.series import Series

DAY_S = 86_400


def series(days: int = 3, bin_s: int = 300, seed: int = 1) -> Series:
    count = int(days * DAY_S / bin_s)
    wave = 100.0 + 60.0 * np.sin(np.arange(count) * bin_s / DAY_S * 2.0 * np.pi)
    return Series(1_700_000_000, bin_s, wave + np.random.default_rng(seed).uniform(0.0, 5.0, count))


class LastValue:
    """Demand stays, give or take a tenth."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, seen: Series, now: float) -> Outlook | None:
        self.asked.append(now)
        if not len(seen.values):
            return None
        value = float(seen.values[-1])
        row = (0.9 * value, value, 1.1 * value)
        return Outlook(now, (300.0, 3600.0), (0.1, 0.5, 0.9), (row, row))


def test_the_future_of_the_series_changes_nothing() -> None:
    whole = series()
    load = load_of(whole, days=1.0, peak_per_s=30.0, seed=1)
    middle = load.start + DAY_S // 2
    shuffled = whole.values.copy()
    shuffled[middle // 300 :] = shuffled[middle // 300 :][::-1]
    told = [
        Outlooks(one, LastValue()).of(load) for one in (whole, Series(whole.start_s, whole.step_s, shuffled))
    ]  # fmt: skip
    for second in told[0]:
        if second <= middle:
            assert told[0][second] == told[1][second]
    assert any(told[0][second] != told[1][second] for second in told[0])


def test_every_seed_and_policy_shares_what_was_made() -> None:
    whole, forecaster = series(), LastValue()
    outlooks = Outlooks(whole, forecaster, warm_s=DAY_S)
    loads = [load_of(whole, days=1.0, peak_per_s=30.0, seed=seed) for seed in (1, 2)]
    first, second = (outlooks.of(load) for load in loads)
    assert first == second
    assert outlooks.made == len(forecaster.asked) == 2 * DAY_S // 300
    # Another peak is another unit, not another forecast.
    half = outlooks.of(load_of(whole, days=1.0, peak_per_s=15.0, seed=1))
    assert len(forecaster.asked) == 2 * DAY_S // 300
    at = loads[0].start
    assert half[at].values[0][1] == pytest.approx(0.5 * first[at].values[0][1])


def test_unit_and_time_are_those_of_the_plant() -> None:
    whole = series()
    load = load_of(whole, days=1.0, peak_per_s=30.0, seed=1)
    covered: list[int] = []
    told = Outlooks(whole, LastValue()).of(load, covered.append)
    for second in (load.start - DAY_S, load.start, load.start + 3600):
        before = float(load.arrivals[second - 300 : second].mean())
        assert told[second].values[0][1] == pytest.approx(before, rel=0.25)
        assert told[second].made_at == second - load.start
    # The first two days are history, all of it warm-up; of the very first instant nothing can be said.
    assert min(told) == 300
    assert max(told) > load.start + DAY_S - 301
    assert sum(covered) == 3 * DAY_S


def test_an_interval_off_the_minute_is_refused() -> None:
    with pytest.raises(ValueError, match="whole minutes"):
        Outlooks(series(), LastValue(), every_s=50)


def test_the_controller_reads_them_in_the_plant() -> None:
    whole = series(days=2)
    load = load_of(whole, days=0.05, peak_per_s=12.0, seed=1)
    setting = Setting(3.0, 50.0, 64, 4, 6, SCENARIOS["node"], load, 0.01)
    policy = Tidegate(pool_settings(setting), setting, Outlooks(whole, LastValue(), warm_s=DAY_S).of(load))
    lengths = Lengths(np.full(50, 500), np.arange(200, 1200, 20))
    model = plain(ReplicaModel(), lengths)
    FastEngine(load, policy, model, SCENARIOS["node"], seed=1, max_replicas=6).play()
    standings = policy.controller.pool("pool").predictive.contest.standings
    # A forecast that only repeats the last bin is judged like one, and apart from what stands in where there is none.
    assert standings["forecast"].replica_hours != standings["last_value"].replica_hours
    assert standings["forecast"].replica_hours == pytest.approx(standings["last_value"].replica_hours, rel=0.5)
