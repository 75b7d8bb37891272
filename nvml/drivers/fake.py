"""Cards without hardware: for demonstrations, and for tests of everything above the driver.

Values stay where they are put. `change` moves them, `refuse` makes the driver fail, `hang_s` makes a read take long.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from nvml.errors import DriverError
from nvml.sample import GpuFault, GpuSample

GIB = 1 << 30


def fake_gpu(index: int) -> GpuSample:
    """An 80 GiB card that serves one model at half load."""
    return GpuSample(
        uuid=f"GPU-fa4e0000-0000-0000-0000-{index:012d}",
        index=index,
        taken_at=0.0,
        name="Fake GPU 80GB",
        pci_bus_id=f"00000000:{index + 1:02X}:00.0",
        memory_used_bytes=60 * GIB,
        memory_total_bytes=80 * GIB,
        memory_reserved_bytes=GIB,
        memory_free_bytes=19 * GIB,
        utilisation_ratio=0.5,
        memory_utilisation_ratio=0.3,
        temperature_c=55,
        power_w=350.0,
        power_limit_w=700.0,
        sm_clock_mhz=1980,
        sm_clock_max_mhz=1980,
        memory_clock_mhz=2619,
        throttle_reasons=(),
        processes=(),
    )


class FakeDriver:
    """See the module. `gpus` is the list of cards in the driver's order and may be replaced between reads."""

    def __init__(self, count: int = 2) -> None:
        self.gpus: list[GpuSample] = [fake_gpu(index) for index in range(count)]
        self.error: DriverError | None = None
        self.hang_s = 0.0
        self.opened = 0
        self.reads = 0
        self._doing: tuple[str, int | None] = ("not opened", None)

    @property
    def doing(self) -> tuple[str, int | None]:
        return self._doing

    def open(self) -> str | None:
        self._doing = ("open", None)
        if self.error is not None:
            raise self.error
        self.opened += 1
        return "fake"

    def read(self, now: float) -> tuple[GpuSample, ...]:
        self._doing = ("read", None)
        self.reads += 1
        if self.hang_s:
            time.sleep(self.hang_s)
        if self.error is not None:
            raise self.error
        samples = tuple(replace(gpu, taken_at=now) for gpu in self.gpus)
        self.gpus = [replace(gpu, xids=()) for gpu in self.gpus]  # an event is told once
        return samples

    def close(self) -> None:
        self._doing = ("closed", None)

    def change(self, index: int, **values: Any) -> None:
        """Sets fields of one card, such as `temperature_c=90` or `xids=(79,)`."""
        self.gpus[index] = replace(self.gpus[index], **values)

    def lose(self, index: int) -> None:
        """The card falls off the bus."""
        gone = self.gpus[index]
        self.gpus[index] = GpuSample(
            uuid=gone.uuid, index=gone.index, taken_at=0.0, name=gone.name, fault=GpuFault.LOST
        )

    def refuse(self, error: DriverError | None) -> None:
        """Every call fails with `error` until it is set to None."""
        self.error = error
