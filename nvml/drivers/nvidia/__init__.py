"""Reads NVIDIA cards through `pynvml`, which loads `libnvidia-ml.so.1`. Nothing outside this package imports it.

ctypes lets go of the interpreter lock during a call, so a call that hangs stops the sampler's thread and nothing else.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pynvml

from nvml.drivers.nvidia.calls import CardRefusedError, Library
from nvml.drivers.nvidia.readings import Card, CardReader
from nvml.sample import FieldFault, FieldFaultKind, GpuFault, GpuSample

_MAX_EVENTS = 64  # per sample; an error storm must not keep the sampler from reading


class NvidiaDriver:
    """See the module. `library_path`: the library to load instead of the dynamic linker's choice."""

    def __init__(self, library_path: Path | None = None) -> None:
        self._library = Library(library_path)
        self._reader = CardReader(self._library)
        self._cards: list[Card] = []
        self._lost_at_open: list[tuple[int, str]] = []
        self._uuid_at: dict[int, str] = {}
        self._events: Any = None
        self._denied = 0
        self._open = False

    @property
    def doing(self) -> tuple[str, int | None]:
        return self._library.doing

    def open(self) -> str | None:
        self._library.load()
        self._library.must(pynvml.nvmlInit)
        self._open = True
        version = self._library.quiet(pynvml.nvmlSystemGetDriverVersion)
        self._enumerate()
        return version

    def close(self) -> None:
        if self._open:
            if self._events is not None:
                self._library.quiet(pynvml.nvmlEventSetFree, self._events)
            self._library.quiet(pynvml.nvmlShutdown)
        self._open, self._events = False, None
        self._cards, self._lost_at_open, self._denied = [], [], 0
        self._library.unload()

    def read(self, now: float) -> tuple[GpuSample, ...]:
        count = self._library.must(pynvml.nvmlDeviceGetCount)
        listed = len(self._cards) + len(self._lost_at_open) + self._denied
        if count != listed or any(self._uuid_of(card) not in (card.uuid, None) for card in self._cards):
            self._enumerate()
        xids = self._drain_events()
        samples = [self._reader.read(card, now, tuple(xids.get(card.uuid, ()))) for card in self._cards]
        samples += [
            GpuSample(uuid=uuid, index=index, taken_at=now, fault=GpuFault.LOST) for index, uuid in self._lost_at_open
        ]
        return tuple(sorted(samples, key=lambda sample: sample.index))

    def _uuid_of(self, card: Card) -> str | None:
        return self._library.quiet(pynvml.nvmlDeviceGetUUID, card.handle)

    # --- finding the cards

    def _enumerate(self) -> None:
        """Builds the list of cards anew and registers for their events. A card that refuses even its handle is
        listed as lost."""
        if self._events is not None:
            self._library.quiet(pynvml.nvmlEventSetFree, self._events)
        self._events = self._library.quiet(pynvml.nvmlEventSetCreate)
        self._cards, self._lost_at_open, self._denied = [], [], 0
        for index in range(self._library.must(pynvml.nvmlDeviceGetCount)):
            faults: list[FieldFault] = []
            try:
                handle = self._library.ask(index, faults, "handle", pynvml.nvmlDeviceGetHandleByIndex, index)
                uuid = handle and self._library.ask(index, faults, "uuid", pynvml.nvmlDeviceGetUUID, handle)
            except CardRefusedError:
                uuid = None
            if uuid:
                self._cards.append(self._describe(Card(index, handle, uuid)))
                self._uuid_at[index] = uuid
            elif any(fault.kind is FieldFaultKind.DENIED for fault in faults):
                self._denied += 1  # a card that was given to someone else
            else:
                self._lost_at_open.append((index, self._uuid_at.get(index, f"unidentified-{index}")))

    def _describe(self, card: Card) -> Card:
        """What does not change while the card is there."""
        faults: list[FieldFault] = []
        try:
            card.name = self._library.ask(card.index, faults, "name", pynvml.nvmlDeviceGetName, card.handle)
            pci = self._library.ask(card.index, faults, "pci_bus_id", pynvml.nvmlDeviceGetPciInfo, card.handle)
            card.bus_id = None if pci is None else str(pci.busId)
            card.sm_clock_max_mhz = self._library.ask(
                card.index,
                faults,
                "sm_clock_max_mhz",
                pynvml.nvmlDeviceGetMaxClockInfo,
                card.handle,
                pynvml.NVML_CLOCK_SM,
            )
            if self._events is not None:
                kinds = (
                    self._library.ask(
                        card.index, faults, "events", pynvml.nvmlDeviceGetSupportedEventTypes, card.handle
                    )
                    or 0
                )
                if kinds & pynvml.nvmlEventTypeXidCriticalError:
                    wanted = pynvml.nvmlEventTypeXidCriticalError
                    self._library.ask(
                        card.index, faults, "events", pynvml.nvmlDeviceRegisterEvents, card.handle, wanted, self._events
                    )
                    card.events = not any(fault.field == "events" for fault in faults)
        except CardRefusedError:
            pass  # it is read like the others, and its sample says what it refused
        return card

    def _drain_events(self) -> dict[str, list[int]]:
        """XID numbers since the last call, by UUID."""
        found: dict[str, list[int]] = {}
        if self._events is None or not any(card.events for card in self._cards):
            return found
        by_handle = {_address(card.handle): card.uuid for card in self._cards}
        for _ in range(_MAX_EVENTS):
            event = self._library.quiet(pynvml.nvmlEventSetWait, self._events, 0)
            if event is None:
                break
            uuid = by_handle.get(_address(event.device)) or self._library.quiet(pynvml.nvmlDeviceGetUUID, event.device)
            if uuid is not None and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                found.setdefault(uuid, []).append(int(event.eventData))
        return found


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
