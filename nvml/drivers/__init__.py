"""The sources of readings, by the name used in settings."""

from __future__ import annotations

from collections.abc import Callable

from nvml.driver import Driver
from nvml.drivers.fake import FakeDriver
from nvml.drivers.nvidia import NvidiaDriver
from nvml.settings import NvmlSettings

DRIVERS: dict[str, Callable[[NvmlSettings], Driver]] = {
    "nvidia": lambda settings: NvidiaDriver(settings.library_path),
    "fake": lambda settings: FakeDriver(),
}


def make_driver(settings: NvmlSettings) -> Driver | None:
    """The driver that the settings name; None when readings are off."""
    factory = DRIVERS.get(settings.driver)
    return None if factory is None else factory(settings)
