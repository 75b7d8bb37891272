"""What one sample says against a card: conditions that hold now, and events that have just happened."""

from __future__ import annotations

from dataclasses import dataclass

from nvml.sample import GpuFault, GpuSample, GpuState, Reason, ReasonCode, RecoveryAction
from nvml.settings import HealthSettings
from nvml.xid import XidAction, rule_for


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of evidence and the state it argues for. `at`: when, for evidence that outlives its sample. `key`:
    tells
    apart findings of one code, such as two XID numbers."""

    state: GpuState
    code: ReasonCode
    detail: str
    at: float = 0.0
    key: int = 0

    def as_reason(self) -> Reason:
        return Reason(self.code, self.detail)


_ACTION_STATES = {
    # Peer-to-peer traffic is to be stopped; a replica on this card alone is not touched.
    RecoveryAction.DRAIN_P2P: GpuState.DEGRADED,
    RecoveryAction.GPU_RESET: GpuState.DRAIN,
    RecoveryAction.NODE_REBOOT: GpuState.DRAIN,
    RecoveryAction.DRAIN_AND_RESET: GpuState.DRAIN,
    RecoveryAction.RECOVER_IMEX_DOMAIN: GpuState.DEGRADED,
    RecoveryAction.BUS_RESET: GpuState.DRAIN,
    RecoveryAction.SYSTEM_REBOOT: GpuState.DRAIN,
}


def live_findings(sample: GpuSample) -> list[Finding]:
    """Conditions the driver reports as long as they hold.

    NVIDIA, "GPU Memory Error Management": a pending remap needs a reset at the next occasion, while work may go on;
    a failed
    one calls for a replacement.
    """
    found: list[Finding] = []
    if sample.fault is GpuFault.RESET_REQUIRED:
        found.append(Finding(GpuState.DRAIN, ReasonCode.RESET_REQUIRED, "the driver says that the GPU must be reset"))
    state = None if sample.recovery_action is None else _ACTION_STATES.get(sample.recovery_action)
    if state is not None and sample.recovery_action is not None:
        asked = sample.recovery_action.value.replace("_", " ")
        found.append(Finding(state, ReasonCode.RECOVERY_ACTION, f"the driver asks for: {asked}"))
    if sample.row_remap_failed:
        found.append(
            Finding(
                GpuState.DRAIN,
                ReasonCode.ROW_REMAP_FAILED,
                "a memory row could not be replaced; the card needs service",
            )
        )
    if sample.row_remap_pending:
        found.append(
            Finding(
                GpuState.DEGRADED, ReasonCode.ROW_REMAP_PENDING, "a memory row waits for a GPU reset to be replaced"
            )
        )
    if sample.page_retirement_pending:
        found.append(
            Finding(
                GpuState.DEGRADED,
                ReasonCode.PAGE_RETIREMENT_PENDING,
                "a memory page waits for a GPU reset to be retired",
            )
        )
    return found


def event_findings(sample: GpuSample, since: GpuSample | None, now: float, settings: HealthSettings) -> list[Finding]:
    """XIDs in this sample, and error counters that have risen since the previous one.

    The uncorrected-error counter stands in for XIDs 48, 94 and 95 where events are not supported or not permitted.
    """
    found: list[Finding] = []
    for number in sample.xids:
        rule = rule_for(number, settings.xid_actions)
        if rule.action is XidAction.IGNORE:
            continue
        state = GpuState.DRAIN if rule.action is XidAction.DRAIN else GpuState.DEGRADED
        found.append(Finding(state, ReasonCode.XID, f"XID {number}: {rule.meaning} ({rule.bucket})", now, number))
    rise = _rise(sample.ecc_uncorrected_count, None if since is None else since.ecc_uncorrected_count)
    if rise:
        detail = f"{rise} new uncorrected memory error(s), {sample.ecc_uncorrected_count} since the driver was loaded"
        found.append(Finding(GpuState.DEGRADED, ReasonCode.ECC_UNCORRECTED, detail, now))
    rise = _rise(sample.nvlink_recovery_count, None if since is None else since.nvlink_recovery_count)
    if rise:
        found.append(Finding(GpuState.DEGRADED, ReasonCode.NVLINK_RECOVERY, f"{rise} new NVLink recoveries", now))
    return found


def was_reset(sample: GpuSample, since: GpuSample | None) -> bool:
    """Whether the card was reset (or the driver reloaded) between two samples: counters that only a reset takes back
    went down."""
    if since is None:
        return False
    return _fell(sample.ecc_uncorrected_count, since.ecc_uncorrected_count) or _fell(sample.energy_j, since.energy_j)


def _rise(value: int | None, before: int | None) -> int:
    return 0 if value is None or before is None else max(0, value - before)


def _fell(value: float | None, before: float | None) -> bool:
    return value is not None and before is not None and value < before
