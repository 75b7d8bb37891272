"""The records: what one reading of one GPU says (`GpuSample`), and what is made of it (`GpuSnapshot`, `NodeSnapshot`).

`None` always means "not known" (unsupported, refused, failed or absurd) and never stands for zero.
`taken_at` is in seconds of the reading machine's monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from nvml.errors import DriverFault


class GpuState(StrEnum):
    """What a balancer may do with a card. Ordered by `SEVERITY`, not by value."""

    OK = "ok"
    DEGRADED = "degraded"
    """Works, but slower or less safe than its peers: prefer others."""
    UNKNOWN = "unknown"
    """No current reading. Not a verdict: GPU signals are off for this card, other signals decide."""
    DRAIN = "drain"
    """Give it no new work; what runs may finish. It needs a reset, a reboot or a repair."""
    LOST = "lost"
    """The driver cannot reach it; what ran there is gone."""


SEVERITY: dict[GpuState, int] = {
    GpuState.OK: 0,
    GpuState.DEGRADED: 1,
    GpuState.UNKNOWN: 2,
    GpuState.DRAIN: 3,
    GpuState.LOST: 4,
}


class ReasonCode(StrEnum):
    """Why a card is not `ok`. Also metric label values, so the set is closed."""

    LOST = "lost"
    VANISHED = "vanished"
    RECOVERING = "recovering"
    RESET_REQUIRED = "reset_required"
    UNREADABLE = "unreadable"
    STALE = "stale"
    DRIVER = "driver"
    XID = "xid"
    ROW_REMAP_FAILED = "row_remap_failed"
    ROW_REMAP_PENDING = "row_remap_pending"
    PAGE_RETIREMENT_PENDING = "page_retirement_pending"
    RECOVERY_ACTION = "recovery_action"
    ECC_UNCORRECTED = "ecc_uncorrected"
    NVLINK_RECOVERY = "nvlink_recovery"
    THROTTLED = "throttled"


class GpuFault(StrEnum):
    """How one card refused a reading while the driver answered for others."""

    LOST = "lost"
    """`NVML_ERROR_GPU_IS_LOST`: fallen off the bus, or made inaccessible."""
    RESET_REQUIRED = "reset_required"
    """`NVML_ERROR_RESET_REQUIRED`: it answers, but must be reset before it can be used."""
    UNREADABLE = "unreadable"
    """Its essential readings failed in another way."""


class ThrottleReason(StrEnum):
    """Why the clocks are below their maximum: the bits of `nvmlClocksEventReasons`, in the vendor's words."""

    GPU_IDLE = "gpu_idle"
    APPLICATION_CLOCKS = "application_clocks"
    SW_POWER_CAP = "sw_power_cap"
    HW_SLOWDOWN = "hw_slowdown"
    SYNC_BOOST = "sync_boost"
    SW_THERMAL = "sw_thermal"
    HW_THERMAL = "hw_thermal"
    HW_POWER_BRAKE = "hw_power_brake"
    DISPLAY_CLOCKS = "display_clocks"
    BOARD_LIMIT = "board_limit"
    RELIABILITY = "reliability"


class RecoveryAction(StrEnum):
    """`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`: what the driver itself asks the operator to do (driver 560 and later)."""

    NONE = "none"
    GPU_RESET = "gpu_reset"
    NODE_REBOOT = "node_reboot"
    DRAIN_P2P = "drain_p2p"
    DRAIN_AND_RESET = "drain_and_reset"
    RECOVER_IMEX_DOMAIN = "recover_imex_domain"
    BUS_RESET = "bus_reset"
    SYSTEM_REBOOT = "system_reboot"


class FieldFaultKind(StrEnum):
    """Why a field is None."""

    UNSUPPORTED = "unsupported"
    DENIED = "denied"
    FAILED = "failed"
    ABSURD = "absurd"


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One field that is `None`, and why. `detail` carries the library's words or the value that was dropped."""

    field: str
    kind: FieldFaultKind
    detail: str = ""


class OwnerKind(StrEnum):
    """What started a process, from its cgroup."""

    POD = "pod"
    CONTAINER = "container"
    SYSTEMD = "systemd"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds GPU memory. `name`: the unit (`vllm@0.service`), `pod:<uid>`, the container's first 12 digits, or
    the command."""

    kind: OwnerKind
    name: str
    pod_uid: str | None = None
    container_id: str | None = None
    unit: str | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One process that holds memory on a card. `ports`: TCP ports that it, or its nearest listening ancestor,
    listens on."""

    pid: int
    used_bytes: int | None = None
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None
    owner: Owner | None = None
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MigInstance:
    """One MIG device. Utilisation does not exist per instance in NVML; memory does."""

    uuid: str
    index: int
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    memory_reserved_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """The fields that sample and snapshot share. A card is known by `uuid`; `index` may change when cards come and
    go."""

    uuid: str
    index: int
    taken_at: float
    name: str | None = None
    pci_bus_id: str | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    """Held by driver and firmware; not in `used` (`nvmlMemory_v2`). None where only the v1 call exists, which counts
    it as used."""
    memory_free_bytes: int | None = None
    utilisation_ratio: float | None = None
    """Part of the driver's last sampling window (1/6 s to 1 s) in which at least one kernel ran: busy, not full."""
    memory_utilisation_ratio: float | None = None
    """Part of that window in which memory was being read or written."""
    temperature_c: int | None = None
    memory_temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    """Since the driver was loaded."""
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: tuple[ThrottleReason, ...] | None = None
    ecc_corrected_count: int | None = None
    """Volatile: since the driver was loaded or the card was reset."""
    ecc_uncorrected_count: int | None = None
    rows_remapped_corrected_count: int | None = None
    rows_remapped_uncorrected_count: int | None = None
    row_remap_pending: bool | None = None
    row_remap_failed: bool | None = None
    page_retirement_pending: bool | None = None
    """The row remap's predecessor, before the Ampere generation."""
    recovery_action: RecoveryAction | None = None
    pcie_replay_count: int | None = None
    nvlink_replay_count: int | None = None
    nvlink_recovery_count: int | None = None
    nvlink_crc_count: int | None = None
    mig_enabled: bool | None = None
    mig: tuple[MigInstance, ...] = ()
    processes: tuple[GpuProcess, ...] | None = None
    """None when the list cannot be trusted, as in a container that does not share the host's process ids."""
    unreadable: tuple[FieldFault, ...] = ()

    def age_s(self, now: float) -> float:
        """Seconds since the reading. `now` is the same machine's monotonic clock."""
        return max(0.0, now - self.taken_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample(GpuReading):
    """One reading of one card, as the driver gave it."""

    fault: GpuFault | None = None
    xids: tuple[int, ...] = ()
    """XID numbers since the previous reading, oldest first."""
    xid_events_supported: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a card is not `ok`."""

    code: ReasonCode
    detail: str
    """A sentence for people, with the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSnapshot(GpuReading):
    """One card as the rest of the system sees it: the reading, the verdict, and the memory facts.

    Memory is a fact about capacity and placement. Engines preallocate, so it says nothing about load.
    """

    state: GpuState = GpuState.UNKNOWN
    reasons: tuple[Reason, ...] = ()
    """Worst first. Never empty when `state` is not `ok`."""
    speed_ratio: float = 1.0
    """SM clock ÷ maximum SM clock while a limit holds the clocks down; 1.0 when nothing does, when idle, and when
    not known."""
    headroom_bytes: int | None = None
    """Free for a further allocation now: a second model of this size fits."""
    memory_loaded_bytes: int | None = None
    """Held by the replicas this node is expected to serve. None until they are declared."""
    memory_foreign_bytes: int | None = None
    """Held by everyone else. None until the replicas are declared."""
    memory_leaked_bytes: int | None = None
    """Used, but by no living process, over many samples. None while it cannot be told."""
    ports: tuple[int, ...] = ()
    """TCP ports served by the processes on this card. For a card that gives no readings: those of its last good one,
    so that
    the replicas on a lost card are still known."""
    last_xid: int | None = None
    xid_counts: tuple[tuple[int, int], ...] = ()
    """(number, times seen) since the sampler started, by number."""
    xid_events_supported: bool = False

    @property
    def takes_new_work(self) -> bool:
        """False only on evidence against the card. An unknown card is judged by other signals."""
        return self.state not in (GpuState.DRAIN, GpuState.LOST)

    @property
    def restart_headroom_bytes(self) -> int | None:
        """What would be free once the declared replicas on this card have gone: whether a restart fits."""
        if self.headroom_bytes is None or self.memory_loaded_bytes is None:
            return None
        return self.headroom_bytes + self.memory_loaded_bytes


@dataclass(frozen=True, slots=True)
class HungCall:
    """The call that the driver has not answered, and for how long."""

    call: str
    gpu_index: int | None
    for_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """All cards of one machine. `fault` is None when the driver answered the last reading."""

    taken_at: float
    gpus: tuple[GpuSnapshot, ...] = ()
    driver_version: str | None = None
    fault: DriverFault | None = None
    detail: str = ""
    """What is wrong and what would be right, when `fault` is set."""
    hung: HungCall | None = None

    def age_s(self, now: float) -> float:
        return max(0.0, now - self.taken_at)

    def gpu(self, uuid: str) -> GpuSnapshot | None:
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)

    def on_port(self, port: int) -> tuple[GpuSnapshot, ...]:
        """The cards on which the replica that listens on `port` holds memory, or held it when readings ended."""
        return tuple(gpu for gpu in self.gpus if port in gpu.ports)


READING_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(GpuReading))
