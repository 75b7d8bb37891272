"""Hysteresis, ejection times, ramps: the small parts with their own memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.health.outlier import Outlier, may_eject
from lb.health.probes import ProbeCount
from lb.health.warmup import FLOOR_RATIO, Ramp, WarmUpTime
from lb.runtime import ProbeStatus
from lb.settings import HealthSettings

READY, LOADING, FAILED = ProbeStatus.READY, ProbeStatus.LOADING, ProbeStatus.FAILED
SETTINGS = HealthSettings()


def observed(count: ProbeCount, *statuses: ProbeStatus) -> list[ProbeStatus | None]:
    return [count.observe(status, SETTINGS) for status in statuses]


def test_first_good_probe_is_enough_and_later_ones_must_repeat() -> None:
    count = ProbeCount()
    assert observed(count, READY) == [READY]
    assert observed(count, FAILED, FAILED) == [None, None]
    assert observed(count, READY) == [None]
    assert observed(count, FAILED, FAILED, FAILED) == [None, None, FAILED]
    assert observed(count, READY, READY) == [None, READY]


def test_loading_is_believed_at_once_and_clears_failures() -> None:
    count = ProbeCount()
    assert observed(count, FAILED, FAILED, LOADING, FAILED, FAILED) == [None, None, LOADING, None, None]


def test_after_doubt_one_good_probe_is_enough() -> None:
    count = ProbeCount()
    observed(count, READY, READY)
    count.doubt(SETTINGS)
    assert observed(count, READY) == [READY]


@given(st.lists(st.sampled_from((READY, FAILED)), max_size=60))
def test_a_replica_that_flaps_every_probe_never_changes(statuses: list[ProbeStatus]) -> None:
    count = ProbeCount(ever_ready=True)
    run, last = 0, None
    for status in statuses:
        run, last = (run + 1 if status is last else 1), status
        needed = SETTINGS.rise if status is READY else SETTINGS.fall
        assert count.observe(status, SETTINGS) is (status if run >= needed else None)


def test_ejections_double_up_to_the_longest_and_health_forgives() -> None:
    outlier = Outlier()
    assert [outlier.eject(100.0, SETTINGS) - 100.0 for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]
    outlier.healthy_since = 1000.0
    assert outlier.eject(1000.0 + 10 * 300 + 1, SETTINGS) == pytest.approx(4001.0 + 10.0)


def test_faults_count_in_a_row_only() -> None:
    outlier = Outlier()
    for _ in range(4):
        outlier.fault(server_error=True)
    outlier.success()
    outlier.fault(server_error=False)
    assert (outlier.faults, outlier.server_errors) == (1, 0)


def test_an_error_that_was_the_requests_fault_is_taken_back() -> None:
    outlier = Outlier()
    outlier.fault(server_error=True)
    outlier.forgive()
    outlier.forgive()
    assert (outlier.faults, outlier.server_errors) == (0, 0)


def test_two_refusals_in_short_time_mean_nobody_is_there() -> None:
    outlier = Outlier()
    assert not outlier.refusal(100.0)
    assert not outlier.refusal(110.0)
    assert outlier.refusal(112.0)


@pytest.mark.parametrize(
    ("ejected", "members", "allowed"),
    [(0, 1, False), (0, 2, True), (1, 2, False), (0, 3, True), (1, 3, False), (1, 4, True)],
)
def test_at_most_half_of_a_pool_is_ejected_and_never_all(ejected: int, members: int, allowed: bool) -> None:
    assert may_eject(ejected, members, SETTINGS) is allowed


def test_even_a_ratio_of_one_leaves_one_in() -> None:
    assert not may_eject(1, 2, HealthSettings(max_ejected_ratio=1.0))


def test_a_ramp_rises_from_its_floor_to_one() -> None:
    ramp = Ramp(start=100.0, duration_s=10.0)
    assert ramp.ratio(100.0) == FLOOR_RATIO
    assert ramp.ratio(105.0) == pytest.approx(0.5)
    assert ramp.ratio(110.0) == ramp.ratio(200.0) == 1.0
    assert Ramp(100.0, 0.0).ratio(100.0) == 1.0


def test_three_answers_in_time_end_a_ramp() -> None:
    ramp = Ramp(0.0, 60.0)
    assert [ramp.observe(seen, 1.0) for seen in (1.2, 3.0, 1.0, 1.4, 0.9)] == [False, False, False, False, True]


def test_the_warm_up_time_is_learned_within_the_setting() -> None:
    time = WarmUpTime(SETTINGS)
    assert time.duration_s == SETTINGS.warmup_s
    time.learn(4.0)
    assert time.duration_s == pytest.approx(4.0)
    time.learn(8.0)
    assert time.duration_s == pytest.approx(5.2)
    time.learn(1000.0)
    assert time.duration_s == SETTINGS.warmup_s
