"""The fold from samples to verdicts: hysteresis, latches, derating, memory facts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nvml.drivers.fake import FakeDriver, fake_gpu
from nvml.errors import DriverFault
from nvml.health import NodeHistory, as_of, driver_failed, fold
from nvml.sample import (
    SEVERITY,
    GpuFault,
    GpuProcess,
    GpuSample,
    GpuSnapshot,
    GpuState,
    HungCall,
    NodeSnapshot,
    ReasonCode,
    RecoveryAction,
    ThrottleReason,
)
from nvml.settings import HealthSettings

GIB = 1 << 30
SETTINGS = HealthSettings()


def run(*samples: GpuSample | None, settings: HealthSettings = SETTINGS, every_s: float = 1.0) -> list[GpuSnapshot]:
    """One card's verdict after each sample. None: the card is not in the list."""
    history, views = NodeHistory(), []
    for number, sample in enumerate(samples):
        now = 100.0 + number * every_s
        present = () if sample is None else (replace(sample, taken_at=now),)
        history, node = fold(history, present, now, settings)
        views.append(node.gpus[0])
    return views


def states(*samples: GpuSample | None, settings: HealthSettings = SETTINGS, every_s: float = 1.0) -> list[GpuState]:
    return [view.state for view in run(*samples, settings=settings, every_s=every_s)]


GOOD = fake_gpu(0)
LOST = GpuSample(uuid=GOOD.uuid, index=0, taken_at=0.0, fault=GpuFault.LOST)
UNREADABLE = replace(LOST, fault=GpuFault.UNREADABLE)
HOT = replace(GOOD, throttle_reasons=(ThrottleReason.HW_THERMAL,), sm_clock_mhz=990)
OK_, DEGRADED, UNKNOWN, DRAIN, GONE = GpuState.OK, GpuState.DEGRADED, GpuState.UNKNOWN, GpuState.DRAIN, GpuState.LOST


class TestPresence:
    def test_lost_is_believed_at_once_and_recovery_takes_three_good_samples(self):
        assert states(GOOD, LOST, GOOD, GOOD, GOOD) == [OK_, GONE, GONE, GONE, OK_]

    def test_a_missing_card_is_unknown_once_and_then_lost(self):
        assert states(GOOD, None, None, GOOD, GOOD, GOOD) == [OK_, UNKNOWN, GONE, GONE, GONE, OK_]

    def test_one_failed_reading_is_forgiven(self):
        assert states(GOOD, UNREADABLE, GOOD) == [OK_, OK_, OK_]
        assert states(GOOD, UNREADABLE, UNREADABLE, GOOD) == [OK_, OK_, UNKNOWN, OK_]

    def test_a_card_that_was_never_readable_is_unknown_at_once(self):
        assert states(UNREADABLE) == [UNKNOWN]

    def test_reset_required_drains_while_it_lasts(self):
        assert states(GOOD, replace(LOST, fault=GpuFault.RESET_REQUIRED), GOOD) == [OK_, DRAIN, OK_]


class TestThrottling:
    def test_degraded_after_three_samples_and_ok_after_three_without(self):
        assert states(HOT, HOT, HOT, GOOD, HOT, GOOD, GOOD, GOOD) == [
            *(OK_, OK_, DEGRADED),
            *(DEGRADED, DEGRADED),
            *(DEGRADED, DEGRADED, OK_),
        ]

    def test_the_speed_is_derated_and_one_reading_does_not_move_it(self):
        assert [view.speed_ratio for view in run(GOOD, GOOD, HOT, HOT, GOOD, GOOD)] == [1.0, 1.0, 1.0, 0.5, 0.5, 1.0]

    def test_an_idle_card_is_not_slow(self):
        idle = replace(GOOD, throttle_reasons=(ThrottleReason.GPU_IDLE,), sm_clock_mhz=210, utilisation_ratio=0.0)
        assert [(view.state, view.speed_ratio) for view in run(idle, idle, idle, idle)] == [(OK_, 1.0)] * 4

    def test_a_power_cap_derates_but_is_no_fault(self):
        capped = replace(GOOD, throttle_reasons=(ThrottleReason.SW_POWER_CAP,), sm_clock_mhz=1584)
        assert [(v.state, round(v.speed_ratio, 2)) for v in run(capped, capped, capped, capped)] == [(OK_, 0.8)] * 4

    def test_the_reason_has_the_numbers(self):
        detail = run(HOT, HOT, HOT)[-1].reasons[0].detail
        assert "hw_thermal" in detail
        assert "990 of 1980 MHz" in detail

    def test_unsupported_reasons_mean_full_speed(self):
        blind = replace(GOOD, throttle_reasons=None, sm_clock_mhz=300)
        assert run(blind, blind, blind)[-1].speed_ratio == 1.0


class TestLatches:
    def test_a_degrading_event_holds_for_its_time(self):
        event = replace(GOOD, xids=(94,))
        hold = HealthSettings(degrade_hold_s=3)
        assert states(event, GOOD, GOOD, GOOD, settings=hold) == [DEGRADED, DEGRADED, DEGRADED, OK_]

    def test_a_draining_event_holds_without_evidence_of_repair(self):
        assert set(states(replace(GOOD, xids=(95,)), *[GOOD] * 50, every_s=3600)) == {DRAIN}

    def test_the_drivers_all_clear_ends_it_after_the_hold(self):
        clear = replace(GOOD, recovery_action=RecoveryAction.NONE)
        hold = HealthSettings(drain_hold_s=4)
        seen = states(replace(clear, xids=(95,)), *[clear] * 5, settings=hold)
        assert seen == [DRAIN, DRAIN, DRAIN, DRAIN, OK_, OK_]

    def test_a_reset_ends_it(self):
        before = replace(GOOD, ecc_uncorrected_count=4, energy_j=5e6, xids=(48,))
        after = replace(GOOD, ecc_uncorrected_count=0, energy_j=12.0)
        assert states(before, after) == [DRAIN, OK_]

    def test_being_lost_and_coming_back_ends_it(self):
        assert states(replace(GOOD, xids=(79,)), LOST, GOOD, GOOD, GOOD) == [DRAIN, GONE, GONE, GONE, OK_]

    @pytest.mark.parametrize(
        ("action", "state"),
        [
            (RecoveryAction.NONE, OK_),
            (RecoveryAction.GPU_RESET, DRAIN),
            (RecoveryAction.NODE_REBOOT, DRAIN),
            (RecoveryAction.DRAIN_P2P, DEGRADED),
            (RecoveryAction.DRAIN_AND_RESET, DRAIN),
            (RecoveryAction.RECOVER_IMEX_DOMAIN, DEGRADED),
            (RecoveryAction.BUS_RESET, DRAIN),
            (RecoveryAction.SYSTEM_REBOOT, DRAIN),
        ],
    )
    def test_the_drivers_own_advice(self, action, state):
        assert states(replace(GOOD, recovery_action=action), GOOD) == [state, OK_]

    def test_new_uncorrected_errors_degrade_where_events_are_not_heard(self):
        few, more = replace(GOOD, ecc_uncorrected_count=2), replace(GOOD, ecc_uncorrected_count=3)
        assert states(few, few, more, more) == [OK_, OK_, DEGRADED, DEGRADED]
        assert run(few, more)[-1].reasons[0].code is ReasonCode.ECC_UNCORRECTED

    def test_a_rise_across_a_failed_reading_is_not_missed(self):
        few, more = replace(GOOD, ecc_uncorrected_count=2), replace(GOOD, ecc_uncorrected_count=3)
        assert states(few, UNREADABLE, more) == [OK_, OK_, DEGRADED]

    def test_row_remapping(self):
        assert states(replace(GOOD, row_remap_pending=True), GOOD) == [DEGRADED, OK_]
        assert states(replace(GOOD, row_remap_failed=True)) == [DRAIN]
        assert states(replace(GOOD, page_retirement_pending=True)) == [DEGRADED]

    def test_link_recoveries(self):
        assert states(replace(GOOD, nvlink_recovery_count=1), replace(GOOD, nvlink_recovery_count=2)) == [OK_, DEGRADED]

    def test_worst_reason_first(self):
        view = run(replace(GOOD, xids=(94, 48), row_remap_pending=True))[-1]
        assert view.reasons[0].code is ReasonCode.XID
        assert "XID 48" in view.reasons[0].detail
        assert {reason.code for reason in view.reasons} == {ReasonCode.XID, ReasonCode.ROW_REMAP_PENDING}
        assert len(view.reasons) == 3


class TestDoubt:
    def node(self) -> tuple[NodeHistory, NodeSnapshot]:
        driver = FakeDriver(3)
        driver.lose(1)
        driver.change(2, xids=(95,))
        return fold(NodeHistory(), driver.read(100.0), 100.0, SETTINGS)

    def test_stale_makes_good_cards_unknown_and_leaves_bad_ones_bad(self):
        _, node = self.node()
        assert [gpu.state for gpu in as_of(node, 104.9, 5.0).gpus] == [OK_, GONE, DRAIN]
        stale = as_of(node, 106.0, 5.0)
        assert [gpu.state for gpu in stale.gpus] == [UNKNOWN, GONE, DRAIN]
        assert stale.gpus[0].reasons[0].code is ReasonCode.STALE
        assert stale.gpus[0].memory_used_bytes == 60 * GIB  # the last value stays visible, with its age
        assert stale.gpus[0].age_s(106.0) == 6.0

    def test_hung_names_the_call(self):
        _, node = self.node()
        hung = as_of(node, 130.0, 5.0, HungCall("nvmlDeviceGetMemoryInfo", 2, 29.0))
        assert hung.fault is DriverFault.HUNG
        assert "nvmlDeviceGetMemoryInfo on GPU 2 has not come back for 29 s" in hung.detail
        assert [gpu.state for gpu in hung.gpus] == [UNKNOWN, GONE, DRAIN]

    def test_a_driver_that_refuses_keeps_what_is_known(self):
        history, _ = self.node()
        node = driver_failed(history, 101.0, DriverFault.VERSION_MISMATCH, "reboot")
        assert [gpu.state for gpu in node.gpus] == [UNKNOWN, GONE, DRAIN]
        assert all(gpu.reasons for gpu in node.gpus)
        assert [gpu.memory_used_bytes for gpu in node.gpus] == [None] * 3
        assert node.fault is DriverFault.VERSION_MISMATCH


class TestLeak:
    def test_memory_without_a_process_counts_after_ten_samples(self):
        views = run(*[GOOD] * 11)
        assert [view.memory_leaked_bytes for view in views] == [0] * 9 + [60 * GIB] * 2

    def test_a_short_gap_is_no_leak(self):
        held = replace(GOOD, processes=(GpuProcess(1, 60 * GIB),))
        assert {view.memory_leaked_bytes for view in run(*[GOOD] * 9, held, *[GOOD] * 9)} == {0}

    def test_unknown_when_processes_are_not_visible(self):
        assert run(*[replace(GOOD, processes=None)] * 20)[-1].memory_leaked_bytes is None


faults = st.sampled_from([None, None, None, GpuFault.LOST, GpuFault.UNREADABLE, GpuFault.RESET_REQUIRED])
readings = st.builds(
    lambda fault, reasons, xids, ecc, clock: replace(
        GOOD, fault=fault, throttle_reasons=reasons, xids=xids, ecc_uncorrected_count=ecc, sm_clock_mhz=clock
    ),
    faults,
    st.none() | st.lists(st.sampled_from(list(ThrottleReason)), unique=True, max_size=3).map(tuple),
    st.lists(st.integers(0, 300), max_size=2).map(tuple),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 4000),
)


@hypothesis_settings(deadline=None)
@given(st.lists(st.none() | readings, min_size=1, max_size=40).filter(lambda samples: samples[0] is not None))
def test_every_history_gives_a_sane_view(samples):
    views = run(*samples)
    for before, sample, view in zip([None, *views], samples, views, strict=False):
        assert (view.state is GpuState.OK) == (not view.reasons)
        assert 0.0 <= view.speed_ratio <= 1.0
        assert len(view.xid_counts) <= 64
        if sample is not None and sample.fault is GpuFault.LOST:
            assert view.state is GpuState.LOST
        if before is not None and before.state is GpuState.LOST and view.state is not GpuState.LOST:
            assert sample is not None
            assert sample.fault in (None, GpuFault.RESET_REQUIRED)


@hypothesis_settings(deadline=None)
@given(st.lists(st.none() | readings, min_size=3, max_size=40).filter(lambda samples: samples[0] is not None))
def test_a_lost_card_is_never_trusted_before_three_good_samples(samples):
    since_lost = 99
    for sample, view in zip(samples, run(*samples), strict=True):
        if sample is None or sample.fault in (GpuFault.LOST, GpuFault.UNREADABLE):
            since_lost = 0 if view.state is GpuState.LOST else since_lost
        else:
            since_lost += 1
        if since_lost < SETTINGS.recover_after_samples:
            assert SEVERITY[view.state] == SEVERITY[GpuState.LOST]
