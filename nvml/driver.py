"""What a source of GPU readings must do. Implementations are in `drivers/`; all calls come from one thread."""

from __future__ import annotations

from typing import Protocol

from nvml.sample import GpuSample


class Driver(Protocol):
    """A source of readings. Only `doing` may be read from another thread, also while a call hangs."""

    @property
    def doing(self) -> tuple[str, int | None]:
        """The library call in progress (or the last one) and the index of the card it is about."""

    def open(self) -> str | None:
        """Makes the driver ready and finds the cards. Returns the driver's version.

        Raises DriverError. May be called again after `close`.
        """

    def read(self, now: float) -> tuple[GpuSample, ...]:
        """One sample per card, lost ones included, with `taken_at=now`.

        A field that cannot be read is None and named in `unreadable`; a card that cannot be read has a `fault`.
        Raises DriverError when the driver as a whole has gone.
        """

    def close(self) -> None:
        """Lets go of the driver. Never raises; safe when not open."""
