"""Calling the library: every call in one place, with what its refusals mean.

`doing` is set before each call. If the call never comes back, others can see which one it was.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pynvml

from nvml.errors import DriverError, DriverFault
from nvml.sample import FieldFault, FieldFaultKind, GpuFault

T = TypeVar("T")

_UNSUPPORTED = {
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,  # a field or counter this card does not have
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_NO_DATA,
}
_CARD_FAULTS = {
    pynvml.NVML_ERROR_GPU_IS_LOST: GpuFault.LOST,
    pynvml.NVML_ERROR_GPU_NOT_FOUND: GpuFault.LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED: GpuFault.RESET_REQUIRED,
}
_DRIVER_FAULTS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        DriverFault.LIBRARY_MISSING,
        "libnvidia-ml.so.1 was not found; install the NVIDIA driver, or start the container with the NVIDIA runtime",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        DriverFault.NOT_LOADED,
        "the NVIDIA kernel module is not loaded; `modprobe nvidia` or reboot",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        DriverFault.NO_PERMISSION,
        "no permission to open /dev/nvidiactl; give this user the group or the device that owns it",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        DriverFault.VERSION_MISMATCH,
        "the driver was upgraded under a loaded kernel module; reload the module or reboot",
    ),
}
_GONE_AS_A_WHOLE = {*_DRIVER_FAULTS, pynvml.NVML_ERROR_UNINITIALIZED} - {pynvml.NVML_ERROR_NO_PERMISSION}


class CardRefusedError(Exception):
    """A call said that the whole card cannot be read."""

    def __init__(self, fault: GpuFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class Library:
    """The loaded `libnvidia-ml.so.1`, or the wish for one. `path`: the file to load instead of the dynamic linker's
    choice."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._preloaded: ctypes.CDLL | None = None
        self.doing: tuple[str, int | None] = ("not opened", None)

    def load(self) -> None:
        """Loads the chosen file; pynvml then asks for the name libnvidia-ml.so.1, and the linker gives it what is
        loaded under that name."""
        if self._path is None:
            return
        try:
            self._preloaded = ctypes.CDLL(str(self._path))
        except OSError as error:
            raise DriverError(DriverFault.LIBRARY_MISSING, f"library_path: {error}") from error

    def unload(self) -> None:
        """Lets go of the library, so that the next `open` loads the file that is there then: after a driver upgrade
        it is another one."""
        with pynvml.libLoadLock:
            loaded, pynvml.nvmlLib = pynvml.nvmlLib, None
            pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - its pointers lead into the library
        for library in (loaded, self._preloaded):
            if library is not None:
                _ctypes.dlclose(library._handle)  # noqa: SLF001 - ctypes has no public way to unload
        self._preloaded = None

    def ask(self, index: int, faults: list[FieldFault], field: str, call: Callable[..., T], *args: Any) -> T | None:
        """One reading of one card. A refusal of the field gives None and a note; of the card or the driver, an
        exception."""
        self.doing = (call.__name__, index)
        try:
            return call(*args)
        except pynvml.NVMLError as error:
            if error.value in _CARD_FAULTS:
                raise CardRefusedError(_CARD_FAULTS[error.value]) from None
            if error.value in _GONE_AS_A_WHOLE:
                raise _driver_error(error, call.__name__) from error
            faults.append(field_fault(field, error.value))
        except pynvml.NVMLLibraryMismatchError:
            faults.append(
                FieldFault(field, FieldFaultKind.UNSUPPORTED)
            )  # pynvml's word for a missing symbol, in some calls
        except UnicodeDecodeError as error:
            faults.append(FieldFault(field, FieldFaultKind.ABSURD, f"not text: {error}"))
        return None

    def must(self, call: Callable[..., T], *args: Any) -> T:
        """A call without which nothing can be read."""
        self.doing = (call.__name__, None)
        try:
            return call(*args)
        except pynvml.NVMLError as error:
            raise _driver_error(error, call.__name__) from error

    def quiet(self, call: Callable[..., T], *args: Any) -> T | None:
        """A call whose failure changes nothing that another call does not tell as well."""
        self.doing = (call.__name__, None)
        try:
            return call(*args)
        except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError):
            return None


def _driver_error(error: Any, call: str) -> DriverError:
    fault, detail = _DRIVER_FAULTS.get(error.value, (DriverFault.UNUSABLE, ""))
    return DriverError(fault, detail or f"{call} failed: {error} (code {error.value})")


def field_fault(field: str, code: int) -> FieldFault:
    if code in _UNSUPPORTED:
        return FieldFault(field, FieldFaultKind.UNSUPPORTED)
    kind = FieldFaultKind.DENIED if code == pynvml.NVML_ERROR_NO_PERMISSION else FieldFaultKind.FAILED
    return FieldFault(field, kind, f"NVML error {code}")
