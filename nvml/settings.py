"""Settings of the GPU readings. Embedded in the policy under `gpus:`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

import durationpy
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo, model_validator

from nvml.xid import XidAction

_SIZE = re.compile(r"(\d{1,15})\s*(KiB|MiB|GiB)?")
_SIZE_FACTOR = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _seconds(value: object, info: ValidationInfo) -> object:
    """`"30s"` and `"1m30s"` as operators write them. Plain numbers are seconds for code; a policy file, which is
    validated with `strict_units` in its context, must give a unit."""
    if isinstance(value, int | float) and value and info.context and info.context.get("strict_units"):
        raise ValueError(f"{value} has no unit; write it as a duration such as {value}s")
    if not isinstance(value, str):
        return value
    try:
        return durationpy.from_str(value).total_seconds()
    except Exception as error:
        raise ValueError(f"{value!r} is not a duration; write it like 500ms, 5s or 1m30s") from error


def _bytes(value: object) -> object:
    """`"1GiB"`, `"512MiB"`; plain numbers are bytes."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(f"{value[:40]!r} is not a size; write it like 1GiB, 512MiB or 1073741824")
    return int(match[1]) * _SIZE_FACTOR[match[2]]


def _shown_s(seconds: float) -> str:
    return f"{seconds:g}s"


Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=str),
    PlainSerializer(_shown_s, return_type=str, when_used="json"),
    Field(gt=0, allow_inf_nan=False),
]
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]


def _written(name: str) -> str:
    """The field's name in YAML: the value there carries its unit (`interval: 1s`), so the name need not."""
    return name.removesuffix("_s").removesuffix("_bytes")


class _Settings(BaseModel):
    """Frozen, unknown keys refused. Code uses the names with units, YAML those without."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        alias_generator=_written,
        validate_by_name=True,
        validate_by_alias=True,
    )


class HealthSettings(_Settings):
    """How samples become a state. Every count is in samples, so that it scales with `interval`."""

    vanished_after_samples: int = Field(default=2, ge=1)
    """A card missing from the list is lost after this many samples. 2: one race with a re-enumeration is forgiven,
    and a
    lost card is still out within two samples. A card that says itself that it is lost is out at once."""
    unreadable_after_samples: int = Field(default=2, ge=1)
    """A card whose memory and utilisation both fail becomes `unknown` after this many samples. 2: one failed call is
    noise."""
    recover_after_samples: int = Field(default=3, ge=1)
    """Good samples before a lost card is trusted again. 3: a card that flaps at the sampling rate stays out."""
    throttle_after_samples: int = Field(default=3, ge=1)
    """Samples with a slowdown reason before the card is degraded, and without one before it is not. 3: slowdown bits
    blink for single windows under bursts."""
    leak_after_samples: int = Field(default=10, ge=1)
    """Samples in which memory without a process must persist before it counts as leaked. 10: the driver frees a killed
    process's memory seconds after the process has left the list."""
    leak_floor_bytes: Annotated[Bytes, Field(ge=0)] = 1 << 30
    """Memory without a process below this is the driver's own. 1 GiB: persistence mode, MPS and confidential computing
    keep up to several hundred MiB."""
    degrade_hold_s: Seconds = 600.0
    """How long an event that degrades (a contained memory error, a link recovery) keeps counting. Ten minutes: longer
    than a model takes to load again, shorter than a shift."""
    drain_hold_s: Seconds = 60.0
    """The least time an event that drains keeps the card out, when the driver itself says that no recovery is
    needed. One
    minute: enough for the engine on it to die or to be restarted. Without such evidence it stays out until the card was
    reset or the process restarts."""
    forget_after_s: Seconds = 86_400.0
    """A card that has been gone for this long is dropped from the list. A day: it must stay visible until someone
    has looked."""
    xid_actions: dict[int, XidAction] = Field(default_factory=dict)
    """Actions that replace the built-in table's, by XID number."""


class NvmlSettings(_Settings):
    """Reading of this machine's GPUs."""

    driver: Literal["nvidia", "fake", "off"] = "nvidia"
    """`nvidia` reads through libnvidia-ml; `fake` invents steady cards for demonstrations; `off` reads nothing."""
    library_path: Path | None = None
    """The libnvidia-ml.so.1 to load. Unset: the dynamic linker's. Needed where the driver is mounted in an unusual
    place, such as /run/nvidia/driver in a container."""
    interval_s: Seconds = 1.0
    """Time between samples. 1 s: the driver's own utilisation window is up to 1 s, and a lost card must be out in
    two samples."""
    deadline_s: Seconds = 5.0
    """A call that takes longer is reported as hung, and readings that are older than this are stale. 5 s: the
    slowest healthy
    call (first use without persistence mode) takes about 2 s."""
    backoff_initial_s: Seconds = 1.0
    """First wait before the driver is opened again after it refused; doubles up to `backoff_max`."""
    backoff_max_s: Seconds = 60.0
    """Longest wait between attempts to open the driver. A minute: opening a broken driver can take seconds of kernel
    time."""
    reopen_lost_s: Seconds = 60.0
    """While a card is lost, the driver is closed and opened this often (doubling to ten times), because the library
    lists
    cards only when opened. A minute: each time costs all other cards one sample."""
    owners_refresh_s: Seconds = 10.0
    """How long what owns a process, and the ports it listens on, are remembered. 10 s: a new replica's port is seen
    soon
    enough, at 1/10 of the cost of looking each time."""
    max_processes_per_gpu: int = Field(default=256, ge=1)
    """Further processes on one card are listed without owner and ports. 256 is far above any engine's worker count."""
    dcgm_names: bool = False
    """Export the readings under DCGM-exporter's names as well, for dashboards that use them. Off: where DCGM-exporter
    itself is scraped, the series would exist twice."""
    health: HealthSettings = HealthSettings()

    @model_validator(mode="after")
    def _deadline_covers_interval(self) -> Self:
        if self.deadline_s < self.interval_s:
            raise ValueError(
                f"deadline is {self.deadline_s:g}s and interval is {self.interval_s:g}s: readings would be stale "
                "before the next one; deadline must be at least interval"
            )
        if self.backoff_max_s < self.backoff_initial_s:
            raise ValueError(
                f"backoff_max is {self.backoff_max_s:g}s, below backoff_initial ({self.backoff_initial_s:g}s); it must "
                "be at least that"
            )
        return self
