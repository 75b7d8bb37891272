"""What can go wrong with the driver, as values that are also metric labels and JSON codes."""

from __future__ import annotations

from enum import StrEnum


class DriverFault(StrEnum):
    """Why no GPU of this machine can be read. None of these stops the service: GPU signals are off until it clears."""

    LIBRARY_MISSING = "library_missing"
    """No `libnvidia-ml.so.1`: a machine without NVIDIA GPUs, or a container started without them."""
    NOT_LOADED = "driver_not_loaded"
    """The library is there, its kernel module is not."""
    NO_PERMISSION = "no_permission"
    """The device files refuse this user."""
    VERSION_MISMATCH = "version_mismatch"
    """Library and kernel module are of different driver versions: an upgrade without a reboot or module reload."""
    UNUSABLE = "unusable"
    """Any other refusal; the detail carries the library's own words."""
    STARTING = "starting"
    """No reading was finished yet."""
    HUNG = "hung"
    """A call into the library has not come back within the deadline."""
    INTERNAL = "internal"
    """The sampler itself failed; the log has the traceback."""


class DriverError(Exception):
    """The whole driver refused. `fault` is the reason code, `detail` one sentence that says what would be right."""

    def __init__(self, fault: DriverFault, detail: str) -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = detail


class WireError(ValueError):
    """A snapshot from a peer that cannot be read. The message names the field and what was expected."""
