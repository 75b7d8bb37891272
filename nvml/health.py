"""Folds samples into verdicts. Pure: the same samples give the same states, with every threshold in `HealthSettings`.

A state gets worse on evidence (at once where the evidence is the driver's own word, after a few samples where one
reading
may lie) and gets better only after several good samples, so that a flapping card stays out.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from statistics import median

from nvml.errors import DriverFault
from nvml.findings import Finding, event_findings, live_findings, was_reset
from nvml.memory import memory_facts
from nvml.sample import (
    READING_FIELDS,
    SEVERITY,
    GpuFault,
    GpuSample,
    GpuSnapshot,
    GpuState,
    HungCall,
    NodeSnapshot,
    Reason,
    ReasonCode,
    RecoveryAction,
    ThrottleReason,
)
from nvml.settings import HealthSettings

# Limits that hold clocks down while there is work. Idle, application clocks and display clocks are choices, not limits.
SLOWDOWNS = frozenset(
    {
        ThrottleReason.HW_SLOWDOWN,
        ThrottleReason.SW_THERMAL,
        ThrottleReason.HW_THERMAL,
        ThrottleReason.HW_POWER_BRAKE,
        ThrottleReason.RELIABILITY,
    }
)
# A power cap is how data-centre cards run under full load: it derates the speed, and is no fault of the card.
DERATES = SLOWDOWNS | {ThrottleReason.SW_POWER_CAP, ThrottleReason.BOARD_LIMIT, ThrottleReason.SYNC_BOOST}
SPEED_WINDOW = 3  # the median of three readings ignores one clock ramp
MAX_XID_NUMBERS = 64  # distinct numbers remembered per card; the catalog has fewer that occur on one


@dataclass(frozen=True, slots=True)
class GpuHistory:
    """What is remembered of one card between samples. Bounded."""

    last: GpuSample
    seen_at: float
    state: GpuState = GpuState.UNKNOWN
    reasons: tuple[Reason, ...] = ()
    lost: bool = False
    missing_samples: int = 0
    unreadable_samples: int = 0
    good_samples: int = 0
    throttled: bool = False
    throttle_streak: int = 0
    calm_action_samples: int = 0
    leak_samples: int = 0
    speeds: tuple[float, ...] = ()
    ports: tuple[int, ...] = ()
    held: tuple[Finding, ...] = ()
    xid_counts: Mapping[int, int] = field(default_factory=dict)
    last_xid: int | None = None


@dataclass(frozen=True, slots=True)
class NodeHistory:
    """What is remembered of all cards between samples, by UUID."""

    gpus: Mapping[str, GpuHistory] = field(default_factory=dict)
    driver_version: str | None = None


def fold(
    history: NodeHistory,
    samples: tuple[GpuSample, ...],
    now: float,
    settings: HealthSettings,
    *,
    driver_version: str | None = None,
    replica_ports: Set[int] | None = None,
) -> tuple[NodeHistory, NodeSnapshot]:
    """One round: what is remembered plus one sample per card give the verdicts. Cards that stay away end as `lost`."""
    cards: dict[str, GpuHistory] = {}
    views: list[GpuSnapshot] = []
    for sample in samples:
        if sample.uuid in cards:
            continue  # a re-enumeration raced: the first handle wins, the next sample settles it
        card, view = _fold_gpu(history.gpus.get(sample.uuid), sample, now, settings, replica_ports)
        cards[sample.uuid] = card
        views.append(view)
    for uuid, old in history.gpus.items():
        if uuid in cards or now - old.seen_at > settings.forget_after_s:
            continue
        cards[uuid], view = _fold_missing(old, now, settings)
        views.append(view)
    views.sort(key=lambda view: (view.index, view.uuid))
    return (
        NodeHistory(cards, driver_version),
        NodeSnapshot(taken_at=now, gpus=tuple(views), driver_version=driver_version),
    )


def driver_failed(history: NodeHistory, now: float, fault: DriverFault, detail: str) -> NodeSnapshot:
    """The view while the driver as a whole refuses: known-bad cards stay bad, all others are `unknown`."""
    node = NodeSnapshot(
        taken_at=now,
        gpus=tuple(_last_view(card) for card in history.gpus.values()),
        driver_version=history.driver_version,
        fault=fault,
        detail=detail,
    )
    return _doubt(node, Reason(ReasonCode.DRIVER, f"{fault.value}: {detail}"))


def as_of(node: NodeSnapshot, now: float, deadline_s: float, hung: HungCall | None = None) -> NodeSnapshot:
    """The snapshot as it may be believed at `now`. Older than `deadline_s`: known-bad cards stay bad, all others are
    `unknown`."""
    age = node.age_s(now)
    if hung is not None:
        about = "" if hung.gpu_index is None else f" on GPU {hung.gpu_index}"
        detail = f"{hung.call}{about} has not come back for {hung.for_s:.0f} s; readings resume when it does"
        stale = Reason(ReasonCode.STALE, f"the last reading is {age:.0f} s old: {detail}")
        if node.fault is not None and node.fault is not DriverFault.STARTING:
            detail = f"{detail} (before that: {node.detail})"
        return replace(_doubt(node, stale), fault=DriverFault.HUNG, detail=detail, hung=hung)
    if age > deadline_s and node.gpus:
        return _doubt(node, Reason(ReasonCode.STALE, f"the last reading is {age:.0f} s old"))
    return node


def _doubt(node: NodeSnapshot, why: Reason) -> NodeSnapshot:
    gpus = tuple(
        gpu
        if SEVERITY[gpu.state] > SEVERITY[GpuState.UNKNOWN]
        else replace(gpu, state=GpuState.UNKNOWN, reasons=(why, *(r for r in gpu.reasons if r.code is not why.code)))
        for gpu in node.gpus
    )
    return replace(node, gpus=gpus)


def _fold_gpu(
    old: GpuHistory | None, sample: GpuSample, now: float, settings: HealthSettings, ports: Set[int] | None
) -> tuple[GpuHistory, GpuSnapshot]:
    previous = old or GpuHistory(last=sample, seen_at=now)
    card, recovery = _fold_presence(previous, sample, now, settings)
    card = _fold_throttle(card, sample, settings)
    returned = previous.lost and not card.lost
    card, held = _fold_held(card, sample, now, settings, since=None if old is None else old.last, returned=returned)
    findings = [*recovery, *live_findings(sample), *held]
    if card.throttled:
        findings.append(_throttle_finding(card, sample))
    facts = memory_facts(sample, ports)
    leaking = facts.unowned_bytes is not None and facts.unowned_bytes > settings.leak_floor_bytes
    card = replace(card, leak_samples=card.leak_samples + 1 if leaking else 0)
    leaked = facts.unowned_bytes if leaking and card.leak_samples >= settings.leak_after_samples else 0
    state, reasons = _verdict(findings)
    served = card.ports
    if sample.fault is None and sample.processes is not None:
        served = tuple(sorted({port for process in sample.processes for port in process.ports}))
    card = replace(card, state=state, reasons=reasons, ports=served)
    view = GpuSnapshot(
        **{name: getattr(sample, name) for name in READING_FIELDS},
        state=state,
        reasons=reasons,
        speed_ratio=median(card.speeds) if card.speeds else 1.0,
        headroom_bytes=facts.headroom_bytes,
        memory_loaded_bytes=facts.loaded_bytes,
        memory_foreign_bytes=facts.foreign_bytes,
        memory_leaked_bytes=None if facts.unowned_bytes is None else leaked,
        ports=served,
        last_xid=card.last_xid,
        xid_counts=tuple(sorted(card.xid_counts.items())),
        xid_events_supported=sample.xid_events_supported,
    )
    return card, view


def _fold_presence(
    card: GpuHistory, sample: GpuSample, now: float, settings: HealthSettings
) -> tuple[GpuHistory, list[Finding]]:
    """Lost, unreadable, recovering: whether the card answers at all."""
    sample = _with_counters_of(card.last, sample)
    if sample.fault is GpuFault.LOST:
        gone = replace(card, last=sample, seen_at=now, lost=True, good_samples=0, missing_samples=0, speeds=())
        return gone, [
            Finding(
                GpuState.LOST, ReasonCode.LOST, "the driver says that the GPU is lost; it needs a reset or a reboot"
            )
        ]
    if sample.fault is GpuFault.UNREADABLE:
        count = card.unreadable_samples + 1
        card = replace(card, last=sample, seen_at=now, unreadable_samples=count, good_samples=0, missing_samples=0)
        if card.lost:
            return card, [Finding(GpuState.LOST, ReasonCode.RECOVERING, "back in the list, but not readable")]
        if count >= settings.unreadable_after_samples or card.state is GpuState.UNKNOWN:
            return card, [Finding(GpuState.UNKNOWN, ReasonCode.UNREADABLE, f"{count} readings in a row failed")]
        return card, []
    good = card.good_samples + 1
    card = replace(card, last=sample, seen_at=now, good_samples=good, missing_samples=0, unreadable_samples=0)
    if card.lost and good < settings.recover_after_samples:
        why = f"back, and good for {good} of {settings.recover_after_samples} samples"
        return card, [Finding(GpuState.LOST, ReasonCode.RECOVERING, why)]
    return replace(card, lost=False), []


def _with_counters_of(before: GpuSample, sample: GpuSample) -> GpuSample:
    """A failed reading must not hide that a counter rose across it, so the last known counters are carried over."""
    if None not in (sample.ecc_uncorrected_count, sample.energy_j, sample.nvlink_recovery_count):
        return sample
    kept = {
        name: getattr(before, name)
        for name in ("ecc_uncorrected_count", "energy_j", "nvlink_recovery_count")
        if getattr(sample, name) is None
    }
    return replace(sample, **kept)


def _fold_throttle(card: GpuHistory, sample: GpuSample, settings: HealthSettings) -> GpuHistory:
    if sample.throttle_reasons is None:
        return replace(card, speeds=(), throttle_streak=0, throttled=False)
    slow = not SLOWDOWNS.isdisjoint(sample.throttle_reasons)
    streak = card.throttle_streak + 1 if slow != card.throttled else 0
    throttled = not card.throttled if streak >= settings.throttle_after_samples else card.throttled
    speed = 1.0
    clock, fastest = sample.sm_clock_mhz, sample.sm_clock_max_mhz
    limited = not DERATES.isdisjoint(sample.throttle_reasons) and ThrottleReason.GPU_IDLE not in sample.throttle_reasons
    if limited and clock and fastest:
        speed = min(1.0, clock / fastest)
    speeds = (*card.speeds, speed)[-SPEED_WINDOW:]
    return replace(
        card, throttled=throttled, throttle_streak=0 if throttled != card.throttled else streak, speeds=speeds
    )


def _throttle_finding(card: GpuHistory, sample: GpuSample) -> Finding:
    names = ", ".join(r.value for r in sample.throttle_reasons or () if r in SLOWDOWNS) or "just ended"
    parts = [f"clocks held down ({names})"]
    if sample.sm_clock_mhz is not None and sample.sm_clock_max_mhz is not None:
        parts.append(f"SM at {sample.sm_clock_mhz} of {sample.sm_clock_max_mhz} MHz")
    if sample.temperature_c is not None:
        parts.append(f"{sample.temperature_c} °C")
    return Finding(GpuState.DEGRADED, ReasonCode.THROTTLED, ", ".join(parts))


def _fold_held(
    card: GpuHistory,
    sample: GpuSample,
    now: float,
    settings: HealthSettings,
    *,
    since: GpuSample | None,
    returned: bool,
) -> tuple[GpuHistory, tuple[Finding, ...]]:
    """Events outlive the sample that brought them: degrading ones for a time, draining ones until a reset or the
    driver's all-clear."""
    new = event_findings(sample, since, now, settings)
    counts = dict(card.xid_counts)
    for number in sample.xids:
        if number in counts or len(counts) < MAX_XID_NUMBERS:
            counts[number] = counts.get(number, 0) + 1
    calm = card.calm_action_samples + 1 if sample.recovery_action is RecoveryAction.NONE else 0
    reset = returned or was_reset(sample, since)
    held = {} if reset else {(f.code, f.key): f for f in card.held}
    held.update({(f.code, f.key): f for f in new})
    kept = tuple(f for f in held.values() if _still_holds(f, now, calm, settings))
    last_xid = sample.xids[-1] if sample.xids else card.last_xid
    return replace(card, held=kept, xid_counts=counts, last_xid=last_xid, calm_action_samples=calm), kept


def _still_holds(finding: Finding, now: float, calm_samples: int, settings: HealthSettings) -> bool:
    age = now - finding.at
    if finding.state is GpuState.DRAIN:
        return age < settings.drain_hold_s or calm_samples < settings.recover_after_samples
    return age < settings.degrade_hold_s


def _fold_missing(card: GpuHistory, now: float, settings: HealthSettings) -> tuple[GpuHistory, GpuSnapshot]:
    missing = card.missing_samples + 1
    lost = card.lost or missing >= settings.vanished_after_samples
    away = f"not in the driver's list for {missing} samples ({now - card.seen_at:.0f} s)"
    finding = Finding(GpuState.LOST if lost else GpuState.UNKNOWN, ReasonCode.VANISHED, away)
    state, reasons = _verdict([finding, *card.held])
    card = replace(card, missing_samples=missing, lost=lost, good_samples=0, state=state, reasons=reasons, speeds=())
    return card, _last_view(card)


def _last_view(card: GpuHistory) -> GpuSnapshot:
    """What is known of a card that gives no readings: its name and its past, no values."""
    last = card.last
    return GpuSnapshot(
        uuid=last.uuid,
        index=last.index,
        name=last.name,
        pci_bus_id=last.pci_bus_id,
        taken_at=card.seen_at,
        memory_total_bytes=last.memory_total_bytes,
        state=card.state,
        reasons=card.reasons,
        ports=card.ports,
        last_xid=card.last_xid,
        xid_counts=tuple(sorted(card.xid_counts.items())),
    )


def _verdict(findings: list[Finding]) -> tuple[GpuState, tuple[Reason, ...]]:
    ordered = sorted(findings, key=lambda f: -SEVERITY[f.state])
    state = ordered[0].state if ordered else GpuState.OK
    return state, tuple(f.as_reason() for f in ordered)


__all__ = [
    "DERATES",
    "SLOWDOWNS",
    "GpuHistory",
    "NodeHistory",
    "as_of",
    "driver_failed",
    "fold",
]
