"""What a runtime says of itself, in one vocabulary for all engines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class RuntimeLoad:
    """One reading of a replica's load. None: this runtime does not say, which is not zero."""

    running: float | None = None
    """Requests in the running batch, summed over data-parallel ranks."""
    waiting: float | None = None
    """Requests queued inside the runtime."""
    waiting_tokens: float | None = None
    """Uncached prompt tokens queued, where the runtime counts them (SGLang)."""
    kv_usage_ratio: float | None = None
    kv_capacity_tokens: int | None = None
    max_running: int | None = None
    """Slots: how many requests it runs at once."""
    prompt_tokens_total: float | None = None
    output_tokens_total: float | None = None
    prefix_hit_ratio: float | None = None
    loaded_models: tuple[str, ...] | None = None
    adapters: tuple[str, ...] | None = None
    inferred: frozenset[str] = frozenset()
    """Names of fields above that were inferred and not read."""


class ProbeStatus(StrEnum):
    """What a health probe found."""

    READY = "ready"
    LOADING = "loading"
    """Alive, says that it is not ready: neither a failure nor a target."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    status: ProbeStatus
    reason: str = ""
    """For people: `connection refused`, `503 Loading model`, `timed out after 2 s`."""
    models: tuple[str, ...] | None = None
    """Models it serves, when this probe asked."""
    runtime: str | None = None
    """Detected runtime, when this probe asked."""
    latency_s: float | None = None
