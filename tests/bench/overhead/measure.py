"""One figure: a load on one proxy for a while, and what the proxy's processes used meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.overhead.load import Load, bodies
from tests.bench.processes import cpu_s

_WARM_REQUESTS_A_CONNECTION = 10
_WARM_S = 0.5


@dataclass(frozen=True, slots=True)
class LoadKind:
    """One of the loads of the comparison."""

    name: str
    title: str
    connections: int
    body_bytes: int
    distinct: int
    """Different bodies; enough that no proxy profits from having seen one before."""
    stream_chunks: int = 0
    """0: unary."""
    timed: bool = False


LOADS = {
    kind.name: kind
    for kind in (
        LoadKind("chat", "1.5 KB chat, 32 connections", 32, 1500, 2000),
        LoadKind("prompt32k", "32 KB prompt, 16 connections", 16, 32_000, 200),
        LoadKind("prompt400k", "400 KB prompt, 4 connections", 4, 400_000, 24),
        LoadKind("streams", "200 streams, 100 chunks each, 20 ms apart", 200, 1500, 2000, stream_chunks=100),
        LoadKind("one", "1.5 KB chat, one connection", 1, 1500, 2000, timed=True),
    )
}


@dataclass(frozen=True, slots=True)
class Figure:
    """What one turn gave."""

    unit: str
    """request or chunk."""
    units: int
    cpu_us: float
    """CPU microseconds per unit; nan where there is no proxy."""
    per_s: float
    errors: int
    p50_ms: float | None = None
    p99_ms: float | None = None


async def measure(kind: LoadKind, port: int, pid: int | None, seconds: float) -> Figure:
    """Run a load for `seconds` after a warm-up. `pid` None: the replica itself, without a proxy."""
    chunks = kind.stream_chunks
    payloads = bodies(kind.distinct, kind.body_bytes, stream=bool(chunks), max_tokens=chunks or 64)
    load = Load(port, payloads, kind.connections, timed=kind.timed)
    await load.start()
    try:
        if chunks:
            await asyncio.sleep(_WARM_S)
        else:
            warm = min(_WARM_REQUESTS_A_CONNECTION * kind.connections, 320)
            await load.until(lambda counts: counts.requests >= warm, 30)
        return await window(load, pid, seconds, "chunk" if chunks else "request")
    finally:
        await load.stop()


async def window(load: Load, pid: int | None, seconds: float, unit: str) -> Figure:
    """CPU and counts of a running load between now and `seconds` later."""
    counts = load.counts
    counts.latencies_s.clear()
    before = (counts.chunks if unit == "chunk" else counts.requests, counts.errors, cpu_s(pid) if pid else 0.0)
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    used_s = (cpu_s(pid) if pid else float("nan")) - before[2]
    wall_s = time.perf_counter() - began
    units = (counts.chunks if unit == "chunk" else counts.requests) - before[0]
    latencies = sorted(counts.latencies_s)
    return Figure(
        unit,
        units,
        used_s / units * 1e6 if units else float("nan"),
        units / wall_s,
        counts.errors - before[1],
        latencies[len(latencies) // 2] * 1e3 if latencies else None,
        latencies[int(len(latencies) * 0.99)] * 1e3 if latencies else None,
    )


def middle(figures: Sequence[Figure]) -> Figure:
    """Median of several turns, figure by figure."""

    def of(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    return Figure(
        figures[0].unit,
        sum(figure.units for figure in figures),
        median(figure.cpu_us for figure in figures),
        median(figure.per_s for figure in figures),
        sum(figure.errors for figure in figures),
        of([figure.p50_ms for figure in figures]),
        of([figure.p99_ms for figure in figures]),
    )
