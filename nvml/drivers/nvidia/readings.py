"""The readings of one card, field by field. A field that the card or the driver does not have is None and noted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pynvml

from nvml.drivers.nvidia.calls import CardRefusedError, Library, field_fault
from nvml.sample import (
    FieldFault,
    FieldFaultKind,
    GpuFault,
    GpuProcess,
    GpuSample,
    MigInstance,
    RecoveryAction,
    ThrottleReason,
)

_THROTTLE_BITS = {
    pynvml.nvmlClocksEventReasonGpuIdle: ThrottleReason.GPU_IDLE,
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting: ThrottleReason.APPLICATION_CLOCKS,
    pynvml.nvmlClocksEventReasonSwPowerCap: ThrottleReason.SW_POWER_CAP,
    pynvml.nvmlClocksEventReasonHwSlowdown: ThrottleReason.HW_SLOWDOWN,
    pynvml.nvmlClocksEventReasonSyncBoost: ThrottleReason.SYNC_BOOST,
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: ThrottleReason.SW_THERMAL,
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: ThrottleReason.HW_THERMAL,
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: ThrottleReason.HW_POWER_BRAKE,
    pynvml.nvmlClocksEventReasonDisplayClockSetting: ThrottleReason.DISPLAY_CLOCKS,
    pynvml.nvmlClocksThrottleReasonBoardLimit: ThrottleReason.BOARD_LIMIT,
    pynvml.nvmlClocksThrottleReasonReliability: ThrottleReason.RELIABILITY,
}
_RECOVERY_ACTIONS = tuple(RecoveryAction)  # NVML_GPU_RECOVERY_ACTION_* count from 0 in this order
_FIELDS = {
    "memory_temperature_c": pynvml.NVML_FI_DEV_MEMORY_TEMP,
    "nvlink_replay_count": pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    "nvlink_recovery_count": pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
    "nvlink_crc_count": pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    "recovery_action": pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
}
_UNION_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t
_NO_INSTANCE = 0xFFFFFFFF
_ABSENT_PID_MEMORY = 2**64 - 1


@dataclass(slots=True)
class Card:
    """One card of the driver's list, with the handle that its library wants."""

    index: int
    handle: Any
    uuid: str
    name: str | None = None
    bus_id: str | None = None
    sm_clock_max_mhz: int | None = None
    events: bool = False


class CardReader:
    """Reads cards through `library`."""

    def __init__(self, library: Library) -> None:
        self._ask = library.ask

    def read(self, card: Card, now: float, xids: tuple[int, ...]) -> GpuSample:
        faults: list[FieldFault] = []
        known = GpuSample(
            uuid=card.uuid,
            index=card.index,
            taken_at=now,
            name=card.name,
            pci_bus_id=card.bus_id,
            sm_clock_max_mhz=card.sm_clock_max_mhz,
            xids=xids,
            xid_events_supported=card.events,
        )
        try:
            values = {
                **self._read_memory(card, faults),
                **self._read_load(card, faults),
                **self._read_errors(card, faults),
            }
        except CardRefusedError as refused:
            return replace(known, fault=refused.fault)
        failed = {fault.field for fault in faults if fault.kind is FieldFaultKind.FAILED}
        unreadable = {"memory", "utilisation"} <= failed
        return replace(known, **values, unreadable=tuple(faults), fault=GpuFault.UNREADABLE if unreadable else None)

    def _read_memory(self, card: Card, faults: list[FieldFault]) -> dict[str, Any]:
        mode = self._ask(card.index, faults, "mig_enabled", pynvml.nvmlDeviceGetMigMode, card.handle)
        mig_enabled = None if mode is None else bool(mode[0])
        return {
            **self._memory_of(card.index, card.handle, faults),
            "mig_enabled": mig_enabled,
            "mig": self._read_mig(card, faults) if mig_enabled else (),
            "processes": self._read_processes(card, faults),
        }

    def _memory_of(self, index: int, handle: Any, faults: list[FieldFault]) -> dict[str, int | None]:
        unsupported: list[FieldFault] = []
        memory = self._ask(index, unsupported, "memory", pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
        if memory is None and any(fault.kind is FieldFaultKind.UNSUPPORTED for fault in unsupported):
            # Drivers before 510 have only the first version of the call, without the reserved part.
            memory, unsupported = self._ask(index, faults, "memory", pynvml.nvmlDeviceGetMemoryInfo, handle), []
        faults += unsupported
        return {
            "memory_used_bytes": None if memory is None else memory.used,
            "memory_total_bytes": None if memory is None else memory.total,
            "memory_free_bytes": None if memory is None else memory.free,
            "memory_reserved_bytes": getattr(memory, "reserved", None),
        }

    def _read_mig(self, card: Card, faults: list[FieldFault]) -> tuple[MigInstance, ...]:
        found: list[MigInstance] = []
        most = self._ask(card.index, faults, "mig", pynvml.nvmlDeviceGetMaxMigDeviceCount, card.handle) or 0
        for index in range(most):
            unused: list[FieldFault] = []  # an empty slot answers NOT_FOUND
            handle = self._ask(
                card.index, unused, "mig", pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card.handle, index
            )
            uuid = handle and self._ask(card.index, faults, "mig", pynvml.nvmlDeviceGetUUID, handle)
            if not uuid:
                continue
            memory = self._memory_of(card.index, handle, faults)
            del memory["memory_free_bytes"]
            found.append(
                MigInstance(
                    uuid=uuid,
                    index=index,
                    gpu_instance_id=self._ask(card.index, faults, "mig", pynvml.nvmlDeviceGetGpuInstanceId, handle),
                    compute_instance_id=self._ask(
                        card.index, faults, "mig", pynvml.nvmlDeviceGetComputeInstanceId, handle
                    ),
                    **memory,
                )
            )
        return tuple(found)

    def _read_processes(self, card: Card, faults: list[FieldFault]) -> tuple[GpuProcess, ...] | None:
        tries: list[FieldFault] = []
        listed = self._ask(card.index, tries, "processes", pynvml.nvmlDeviceGetComputeRunningProcesses_v3, card.handle)
        if listed is None and any(fault.kind is FieldFaultKind.UNSUPPORTED for fault in tries):
            tries = []  # before driver 510
            v2 = pynvml.nvmlDeviceGetComputeRunningProcesses_v2
            listed = self._ask(card.index, tries, "processes", v2, card.handle)
        faults += tries
        if listed is None:
            return None
        return tuple(
            GpuProcess(
                pid=int(entry.pid),
                used_bytes=None if entry.usedGpuMemory in (None, _ABSENT_PID_MEMORY) else int(entry.usedGpuMemory),
                gpu_instance_id=_instance(entry.gpuInstanceId),
                compute_instance_id=_instance(entry.computeInstanceId),
            )
            for entry in listed
        )

    def _read_load(self, card: Card, faults: list[FieldFault]) -> dict[str, Any]:
        index, handle = card.index, card.handle
        use = self._ask(index, faults, "utilisation", pynvml.nvmlDeviceGetUtilizationRates, handle)
        power = self._ask(index, faults, "power_w", pynvml.nvmlDeviceGetPowerUsage, handle)
        limit = self._ask(index, faults, "power_limit_w", pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        energy = self._ask(index, faults, "energy_j", pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        return {
            "utilisation_ratio": None if use is None else use.gpu / 100,
            "memory_utilisation_ratio": None if use is None else use.memory / 100,
            "temperature_c": self._ask(
                index, faults, "temperature_c", pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU
            ),
            "power_w": None if power is None else power / 1000,
            "power_limit_w": None if limit is None else limit / 1000,
            "energy_j": None if energy is None else energy / 1000,
            "sm_clock_mhz": self._ask(
                index, faults, "sm_clock_mhz", pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM
            ),
            "memory_clock_mhz": self._ask(
                index, faults, "memory_clock_mhz", pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM
            ),
            "throttle_reasons": self._read_throttle(card, faults),
        }

    def _read_throttle(self, card: Card, faults: list[FieldFault]) -> tuple[ThrottleReason, ...] | None:
        tries: list[FieldFault] = []
        bits = self._ask(
            card.index, tries, "throttle_reasons", pynvml.nvmlDeviceGetCurrentClocksEventReasons, card.handle
        )
        if bits is None and any(fault.kind is FieldFaultKind.UNSUPPORTED for fault in tries):
            tries = []  # the name before driver 535
            bits = self._ask(
                card.index, tries, "throttle_reasons", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, card.handle
            )
        faults += tries
        return None if bits is None else tuple(reason for bit, reason in _THROTTLE_BITS.items() if bits & bit)

    def _read_errors(self, card: Card, faults: list[FieldFault]) -> dict[str, Any]:
        index, handle = card.index, card.handle
        ecc = pynvml.nvmlDeviceGetTotalEccErrors
        corrected, uncorrected = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        volatile = pynvml.NVML_VOLATILE_ECC
        rows = self._ask(index, faults, "row_remap", pynvml.nvmlDeviceGetRemappedRows, handle)
        pages = None
        if rows is None:
            pages = self._ask(
                index, faults, "page_retirement_pending", pynvml.nvmlDeviceGetRetiredPagesPendingStatus, handle
            )
        return {
            "ecc_corrected_count": self._ask(index, faults, "ecc_corrected_count", ecc, handle, corrected, volatile),
            "ecc_uncorrected_count": self._ask(
                index, faults, "ecc_uncorrected_count", ecc, handle, uncorrected, volatile
            ),
            "rows_remapped_corrected_count": None if rows is None else rows[0],
            "rows_remapped_uncorrected_count": None if rows is None else rows[1],
            "row_remap_pending": None if rows is None else bool(rows[2]),
            "row_remap_failed": None if rows is None else bool(rows[3]),
            "page_retirement_pending": None if pages is None else bool(pages),
            "pcie_replay_count": self._ask(
                index, faults, "pcie_replay_count", pynvml.nvmlDeviceGetPcieReplayCounter, handle
            ),
            **self._read_fields(card, faults),
        }

    def _read_fields(self, card: Card, faults: list[FieldFault]) -> dict[str, Any]:
        """Readings that exist only as numbered fields, in one call. Each has its own return code."""
        values = self._ask(
            card.index, faults, "fields", pynvml.nvmlDeviceGetFieldValues, card.handle, list(_FIELDS.values())
        )
        found: dict[str, Any] = {}
        for name, value in zip(_FIELDS, values or (), strict=False):
            if value.nvmlReturn != pynvml.NVML_SUCCESS:
                faults.append(field_fault(name, value.nvmlReturn))
            elif 0 <= value.valueType < len(_UNION_MEMBERS):
                found[name] = int(getattr(value.value, _UNION_MEMBERS[value.valueType]))
        action = found.pop("recovery_action", None)
        if action is not None and 0 <= action < len(_RECOVERY_ACTIONS):
            found["recovery_action"] = _RECOVERY_ACTIONS[action]
        return found


def _instance(number: int | None) -> int | None:
    return None if number is None or number == _NO_INSTANCE else int(number)
