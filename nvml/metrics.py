"""The snapshot as Prometheus metrics. The only module here that imports `prometheus_client`.

Own names start with `tidegate_gpu_`. With `dcgm_names` the readings also appear under the names and labels that
DCGM-exporter gives
them (its `default-counters.csv`), so that existing dashboards work unchanged. DCGM's counters have no `_total` in
their names,
which the text format forbids for the type `counter`; they are exported without a type, and queries do not notice.

A field that is not known is absent: no series, never a zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nvml.errors import DriverFault
from nvml.sample import GpuSnapshot, GpuState, NodeSnapshot, ReasonCode, ThrottleReason

_MIB = 1 << 20
_ID = ("uuid", "gpu")

# name -> (field, factor to the base unit, help)
_GAUGES: dict[str, tuple[str, float, str]] = {
    "tidegate_gpu_memory_used_bytes": ("memory_used_bytes", 1, "Memory in use on the card."),
    "tidegate_gpu_memory_total_bytes": ("memory_total_bytes", 1, "Memory of the card."),
    "tidegate_gpu_memory_reserved_bytes": ("memory_reserved_bytes", 1, "Memory held by driver and firmware."),
    "tidegate_gpu_memory_headroom_bytes": ("headroom_bytes", 1, "Memory free for a further allocation."),
    "tidegate_gpu_memory_loaded_bytes": ("memory_loaded_bytes", 1, "Memory held by this node's declared replicas."),
    "tidegate_gpu_memory_foreign_bytes": ("memory_foreign_bytes", 1, "Memory held by anyone else."),
    "tidegate_gpu_memory_leaked_bytes": (
        "memory_leaked_bytes",
        1,
        "Memory that no living process holds, over many samples.",
    ),
    "tidegate_gpu_utilisation_ratio": ("utilisation_ratio", 1, "Part of the last window in which a kernel ran."),
    "tidegate_gpu_memory_utilisation_ratio": (
        "memory_utilisation_ratio",
        1,
        "Part of the last window in which memory was accessed.",
    ),
    "tidegate_gpu_temperature_celsius": ("temperature_c", 1, "Temperature of the chip."),
    "tidegate_gpu_memory_temperature_celsius": ("memory_temperature_c", 1, "Temperature of the memory."),
    "tidegate_gpu_power_watts": ("power_w", 1, "Power drawn by the board."),
    "tidegate_gpu_power_limit_watts": ("power_limit_w", 1, "Power limit in force."),
    "tidegate_gpu_sm_clock_hertz": ("sm_clock_mhz", 1e6, "Clock of the streaming multiprocessors."),
    "tidegate_gpu_sm_clock_max_hertz": ("sm_clock_max_mhz", 1e6, "Highest clock of the streaming multiprocessors."),
    "tidegate_gpu_memory_clock_hertz": ("memory_clock_mhz", 1e6, "Clock of the memory."),
    "tidegate_gpu_speed_ratio": ("speed_ratio", 1, "Clock as part of the maximum while a limit holds it down, else 1."),
    "tidegate_gpu_row_remap_pending": ("row_remap_pending", 1, "1 when a memory row waits for a reset to be replaced."),
    "tidegate_gpu_row_remap_failed": ("row_remap_failed", 1, "1 when a memory row could not be replaced."),
    "tidegate_gpu_mig_enabled": ("mig_enabled", 1, "1 when the card is split into MIG instances."),
}
_COUNTERS: dict[str, tuple[str, str]] = {
    "tidegate_gpu_energy_joules": ("energy_j", "Energy since the driver was loaded."),
    "tidegate_gpu_ecc_corrected_errors": (
        "ecc_corrected_count",
        "Corrected memory errors since the driver was loaded.",
    ),
    "tidegate_gpu_ecc_uncorrected_errors": (
        "ecc_uncorrected_count",
        "Uncorrected memory errors since the driver was loaded.",
    ),
    "tidegate_gpu_rows_remapped_corrected": (
        "rows_remapped_corrected_count",
        "Memory rows replaced after corrected errors.",
    ),
    "tidegate_gpu_rows_remapped_uncorrected": (
        "rows_remapped_uncorrected_count",
        "Memory rows replaced after uncorrected errors.",
    ),
    "tidegate_gpu_pcie_replays": ("pcie_replay_count", "PCIe packets sent again."),
    "tidegate_gpu_nvlink_replays": ("nvlink_replay_count", "NVLink packets sent again, over all links."),
    "tidegate_gpu_nvlink_recoveries": ("nvlink_recovery_count", "NVLink link recoveries, over all links."),
    "tidegate_gpu_nvlink_crc_errors": ("nvlink_crc_count", "NVLink flow-control CRC errors, over all links."),
}
# DCGM field -> (type in default-counters.csv, field, factor to DCGM's unit, DCGM's help)
_DCGM: dict[str, tuple[str, str, float, str]] = {
    "DCGM_FI_DEV_SM_CLOCK": ("gauge", "sm_clock_mhz", 1, "SM clock frequency (in MHz)."),
    "DCGM_FI_DEV_MEM_CLOCK": ("gauge", "memory_clock_mhz", 1, "Memory clock frequency (in MHz)."),
    "DCGM_FI_DEV_MEMORY_TEMP": ("gauge", "memory_temperature_c", 1, "Memory temperature (in C)."),
    "DCGM_FI_DEV_GPU_TEMP": ("gauge", "temperature_c", 1, "GPU temperature (in C)."),
    "DCGM_FI_DEV_POWER_USAGE": ("gauge", "power_w", 1, "Power draw (in W)."),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": (
        "counter", "energy_j", 1000, "Total energy consumption since boot (in mJ)."),
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": ("counter", "pcie_replay_count", 1, "Total number of PCIe retries."),
    "DCGM_FI_DEV_GPU_UTIL": ("gauge", "utilisation_ratio", 100, "GPU utilization (in %)."),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("gauge", "memory_utilisation_ratio", 100, "Memory utilization (in %)."),
    "DCGM_FI_DEV_FB_FREE": ("gauge", "memory_free_bytes", 1 / _MIB, "Framebuffer memory free (in MiB)."),
    "DCGM_FI_DEV_FB_USED": ("gauge", "memory_used_bytes", 1 / _MIB, "Framebuffer memory used (in MiB)."),
    "DCGM_FI_DEV_FB_RESERVED": ("gauge", "memory_reserved_bytes", 1 / _MIB, "Framebuffer memory reserved (in MiB)."),
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": (
        "counter", "ecc_corrected_count", 1, "Total number of single-bit volatile ECC errors."),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": (
        "counter", "ecc_uncorrected_count", 1, "Total number of double-bit volatile ECC errors."),
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": (
        "counter", "rows_remapped_uncorrected_count", 1, "Number of remapped rows for uncorrectable errors"),
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": (
        "counter", "rows_remapped_corrected_count", 1, "Number of remapped rows for correctable errors"),
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": ("gauge", "row_remap_failed", 1, "Whether remapping of rows has failed"),
    "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": (
        "counter", "nvlink_replay_count", 1, "Total number of NVLink retries."),
    "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": (
        "counter", "nvlink_recovery_count", 1, "Total number of NVLink recovery errors."),
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": (
        "counter", "nvlink_crc_count", 1, "Total number of NVLink flow-control CRC errors."),
}  # fmt: skip


class GpuCollector(Collector):
    """Give it to a registry. Each scrape exports what `latest` says at that moment; nothing is kept."""

    def __init__(
        self,
        latest: Callable[[], NodeSnapshot],
        *,
        dcgm_names: bool = False,
        hostname: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._latest = latest
        self._dcgm_names = dcgm_names
        self._hostname = hostname
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        node = self._latest()
        yield from own_metrics(node, self._clock())
        if self._dcgm_names:
            yield from dcgm_metrics(node, self._hostname)

    def describe(self) -> Iterable[Metric]:
        return ()  # families depend on what the cards support; an empty answer keeps registration from collecting


def own_metrics(node: NodeSnapshot, now: float) -> Iterator[Metric]:
    """Families under `tidegate_gpu_`."""
    fault = GaugeMetricFamily(
        "tidegate_gpu_driver_fault", "1 for the reason for which no GPU can be read.", labels=["fault"]
    )
    for kind in DriverFault:
        fault.add_metric([kind.value], float(node.fault is kind))
    yield fault
    age = GaugeMetricFamily("tidegate_gpu_reading_age_seconds", "Age of the card's last reading.", labels=_ID)
    for gpu in node.gpus:
        age.add_metric(_labels(gpu), gpu.age_s(now))
    yield age
    yield from _identity(node)
    for name, (field, factor, text) in _GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=_ID)
        for gpu in _current(node):
            if (value := getattr(gpu, field)) is not None:
                family.add_metric(_labels(gpu), value * factor)
        yield family
    for name, (field, text) in _COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=_ID)
        for gpu in _current(node):
            if (value := getattr(gpu, field)) is not None:
                counter.add_metric(_labels(gpu), value)
        yield counter
    yield from _detail(node)


def _identity(node: NodeSnapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily("tidegate_gpu_info", "Always 1.", labels=[*_ID, "name", "pci_bus_id", "driver_version"])
    state = GaugeMetricFamily("tidegate_gpu_state", "1 for the state that the card is in.", labels=[*_ID, "state"])
    reason = GaugeMetricFamily(
        "tidegate_gpu_reason", "1 for each reason why the card is not ok.", labels=[*_ID, "reason"]
    )
    for gpu in node.gpus:
        ids = _labels(gpu)
        info.add_metric([*ids, gpu.name or "", gpu.pci_bus_id or "", node.driver_version or ""], 1)
        for each in GpuState:
            state.add_metric([*ids, each.value], float(gpu.state is each))
        codes = {r.code for r in gpu.reasons}
        for code in ReasonCode:
            if code in codes:
                reason.add_metric([*ids, code.value], 1)
    yield from (info, state, reason)


def _detail(node: NodeSnapshot) -> Iterator[Metric]:
    throttle = GaugeMetricFamily(
        "tidegate_gpu_throttle", "1 for each reason that holds the clocks down.", labels=[*_ID, "reason"]
    )
    xid = CounterMetricFamily("tidegate_gpu_xid_events", "XID events seen.", labels=[*_ID, "xid"])
    mig_used = GaugeMetricFamily(
        "tidegate_gpu_mig_memory_used_bytes", "Memory in use in a MIG instance.", labels=[*_ID, "mig"]
    )
    mig_total = GaugeMetricFamily(
        "tidegate_gpu_mig_memory_total_bytes", "Memory of a MIG instance.", labels=[*_ID, "mig"]
    )
    for gpu in node.gpus:
        for number, count in gpu.xid_counts:
            xid.add_metric([*_labels(gpu), str(number)], count)
    for gpu in _current(node):
        for reason in ThrottleReason:
            if gpu.throttle_reasons is not None:
                throttle.add_metric([*_labels(gpu), reason.value], float(reason in gpu.throttle_reasons))
        for instance in gpu.mig:
            if instance.memory_used_bytes is not None:
                mig_used.add_metric([*_labels(gpu), instance.uuid], instance.memory_used_bytes)
            if instance.memory_total_bytes is not None:
                mig_total.add_metric([*_labels(gpu), instance.uuid], instance.memory_total_bytes)
    yield from (throttle, xid, mig_used, mig_total)


def dcgm_metrics(node: NodeSnapshot, hostname: str) -> Iterator[Metric]:
    """The same readings under DCGM-exporter's names, units and labels."""

    def labels(gpu: GpuSnapshot) -> dict[str, str]:
        return {
            "gpu": str(gpu.index),
            "UUID": gpu.uuid,
            "pci_bus_id": gpu.pci_bus_id or "",
            "device": f"nvidia{gpu.index}",
            "modelName": gpu.name or "",
            "Hostname": hostname,
            "DCGM_FI_DRIVER_VERSION": node.driver_version or "",
        }

    for name, (kind, field, factor, text) in _DCGM.items():
        family = Metric(name, text, "gauge" if kind == "gauge" else "unknown")
        for gpu in _current(node):
            if (value := getattr(gpu, field)) is not None:
                scaled = value * factor
                family.add_sample(name, labels(gpu), int(scaled) if name.startswith("DCGM_FI_DEV_FB_") else scaled)
        yield family
    family = Metric("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.", "gauge")
    for gpu in node.gpus:
        if gpu.xid_events_supported or gpu.last_xid is not None:
            family.add_sample(family.name, labels(gpu), gpu.last_xid or 0)  # DCGM's own "none yet" is 0
    yield family


def _current(node: NodeSnapshot) -> Iterator[GpuSnapshot]:
    """Cards whose values are of now: a card that is lost or not read has none."""
    return (gpu for gpu in node.gpus if gpu.state not in (GpuState.LOST, GpuState.UNKNOWN))


def _labels(gpu: GpuSnapshot) -> list[str]:
    return [gpu.uuid, str(gpu.index)]
