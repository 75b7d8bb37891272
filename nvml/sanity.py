"""Drops values that no card can have, so that one broken sensor never looks like a measurement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nvml.sample import FieldFault, FieldFaultKind, GpuProcess, GpuSample, MigInstance

# Inclusive bounds. They are wide on purpose: they catch all-ones registers and unit mistakes, not unusual hardware.
BOUNDS: dict[str, tuple[float, float]] = {
    "memory_total_bytes": (1, 2**46),  # 64 TiB; the largest card of 2025 has 288 GB
    "memory_used_bytes": (0, 2**46),
    "memory_reserved_bytes": (0, 2**46),
    "memory_free_bytes": (0, 2**46),
    "utilisation_ratio": (0.0, 1.0),  # 255 % is what a broken counter gives
    "memory_utilisation_ratio": (0.0, 1.0),
    "temperature_c": (-40, 150),  # silicon is off long before 150; 0xFFFF is "no sensor"
    "memory_temperature_c": (-40, 150),
    "power_w": (0.0, 10_000.0),  # a board of 2025 draws up to 1,400 W
    "power_limit_w": (0.0, 10_000.0),
    "energy_j": (0.0, 1e13),  # 10 kW for 30 years
    "sm_clock_mhz": (0, 10_000),
    "sm_clock_max_mhz": (1, 10_000),
    "memory_clock_mhz": (0, 50_000),  # GDDR7 reports its data rate
    "ecc_corrected_count": (0, 2**48),
    "ecc_uncorrected_count": (0, 2**48),
    "rows_remapped_corrected_count": (0, 2**20),
    "rows_remapped_uncorrected_count": (0, 2**20),
    "pcie_replay_count": (0, 2**32 - 2),  # all ones is "cannot read"
    "nvlink_replay_count": (0, 2**48),
    "nvlink_recovery_count": (0, 2**48),
    "nvlink_crc_count": (0, 2**48),
}


def sanitise(sample: GpuSample) -> GpuSample:
    """The same sample with impossible values set to `None` and noted in `unreadable`. Returns it unchanged if all
    are possible."""
    drop: dict[str, Any] = {}
    faults: list[FieldFault] = []
    for field, (low, high) in BOUNDS.items():
        value = getattr(sample, field)
        if value is not None and not low <= value <= high:  # NaN fails both comparisons, so it is dropped too
            drop[field] = None
            faults.append(FieldFault(field, FieldFaultKind.ABSURD, f"{value} is outside {low:g} to {high:g}"))
    total = sample.memory_total_bytes
    if total is not None and "memory_total_bytes" not in drop:
        for field in ("memory_used_bytes", "memory_reserved_bytes", "memory_free_bytes"):
            value = getattr(sample, field)
            if field not in drop and value is not None and value > total:
                drop[field] = None
                faults.append(
                    FieldFault(field, FieldFaultKind.ABSURD, f"{value} is more than the card's total of {total}")
                )
    if sample.processes is not None and any(_absurd(process, total) for process in sample.processes):
        drop["processes"] = tuple(replace(p, used_bytes=None) if _absurd(p, total) else p for p in sample.processes)
        faults.append(FieldFault("processes", FieldFaultKind.ABSURD, "a process holds more memory than the card has"))
    instances = tuple(_sane_instance(instance) for instance in sample.mig)
    if instances != sample.mig:
        drop["mig"] = instances
        faults.append(FieldFault("mig", FieldFaultKind.ABSURD, "an instance reported more memory than it has"))
    if not drop:
        return sample
    return replace(sample, **drop, unreadable=sample.unreadable + tuple(faults))


def _absurd(process: GpuProcess, total_bytes: int | None) -> bool:
    most = BOUNDS["memory_used_bytes"][1] if total_bytes is None else total_bytes
    return process.used_bytes is not None and process.used_bytes > most


def _sane_instance(instance: MigInstance) -> MigInstance:
    total, used = instance.memory_total_bytes, instance.memory_used_bytes
    if total is None or used is None or 0 <= used <= total:
        return instance
    return replace(instance, memory_used_bytes=None)
