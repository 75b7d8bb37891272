"""How the cost grows: with replicas, with open streams, and what 100,000 streams leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from typing import Any

from tests.bench.overhead.field import Field
from tests.bench.overhead.load import Load, bodies
from tests.bench.overhead.measure import LOADS, measure, middle, window
from tests.bench.processes import cpu_s, http_json, rss_bytes
from tests.bench.proxy import Running

CHUNKS_PER_S = 8000.0
"""Held constant while the number of streams grows, so that only their number changes."""
_STREAMS_A_REPLICA = 200
"""Below the 256 that Tidegate sends to a replica that does not tell its limit."""
_LEAST_REPLICAS = 10
_STREAM_CHUNKS = 1_000_000
"""Longer than any window: the cost of beginning and ending a stream stays out of it."""
_IDLE_S = 3.0
_WARM_STREAMS = 12_000
"""Before the first look at memory: what is bounded (a ring of the last 4,096 decisions, pools, caches) is full by then,
so that what grows after it grows without bound."""


async def by_replicas(field: Field, names: Sequence[str], counts: Sequence[int], rounds: int, seconds: float) -> Any:
    """CPU per chat request and per idle second, before so many replicas."""
    result: dict[str, dict[str, Any]] = {name: {} for name in names}
    for count in counts:
        backends = field.instant(count)
        for name in names:
            with field.running(name, backends) as proxy:
                before = cpu_s(proxy.pid)
                await asyncio.sleep(_IDLE_S)
                idle_ms_per_s = (cpu_s(proxy.pid) - before) / _IDLE_S * 1e3
                figures = [await measure(LOADS["chat"], proxy.port, proxy.pid, seconds) for _ in range(rounds)]
                result[name][str(count)] = {**asdict(middle(figures)), "idle_ms_per_s": idle_ms_per_s}
                field.say(
                    f"{count:5} replicas  {name:16} {middle(figures).cpu_us:8.1f} us a request, idle "
                    f"{idle_ms_per_s:6.1f} ms/s, errors {middle(figures).errors}"
                )
    return result


async def by_streams(field: Field, names: Sequence[str], counts: Sequence[int], seconds: float) -> Any:
    """CPU per chunk and resident bytes per stream with so many streams open at once."""
    result: dict[str, dict[str, Any]] = {name: {} for name in names}
    for count in counts:
        backends = field.instant(
            max(_LEAST_REPLICAS, ceil(count / _STREAMS_A_REPLICA)), interval_s=count / CHUNKS_PER_S
        )
        for name in names:
            with field.running(name, backends) as proxy:
                empty = rss_bytes(proxy.pid)
                load = Load(proxy.port, bodies(200, 1500, stream=True, chunks=_STREAM_CHUNKS), count)
                try:
                    await load.start()
                    await load.until(lambda counts, open_streams=count: counts.chunks >= 2 * open_streams, 120)  # type: ignore[misc]
                    figure = await window(load, proxy.pid, seconds, "chunk")
                    each = (rss_bytes(proxy.pid) - empty) / count
                finally:
                    await load.stop()
                result[name][str(count)] = {**asdict(figure), "rss_bytes_per_stream": each}
                field.say(
                    f"{count:5} streams   {name:16} {figure.cpu_us:8.1f} us a chunk at {figure.per_s:.0f}/s, "
                    f"{each / 1024:.1f} KiB a stream, errors {figure.errors}"
                )
    return result


async def after_many(field: Field, names: Sequence[str], streams: int) -> Any:
    """Memory before and after so many short streams of which every tenth is cut by its client."""
    result: dict[str, Any] = {}
    for name in names:
        with field.running(name, field.instant(4, interval_s=0.02)) as proxy:
            first = await _many(proxy, min(_WARM_STREAMS, streams))
            before = rss_bytes(proxy.pid)
            counts = await _many(proxy, streams)
            await asyncio.sleep(2.0)
            after = rss_bytes(proxy.pid)
            result[name] = {
                "streams": counts[0] + counts[1], "cut": counts[1], "errors": counts[2] + first[2],
                "rss_before_bytes": before, "rss_after_bytes": after, "growth_ratio": after / before - 1,
                "open_tickets": _open_tickets(proxy),
            }  # fmt: skip
            field.say(
                f"{counts[0] + counts[1]} streams, {counts[1]} cut  {name:16} RSS {before / 2**20:.1f} -> "
                f"{after / 2**20:.1f} MiB ({after / before - 1:+.1%}), tickets open {result[name]['open_tickets']}, "
                f"errors {counts[2]}"
            )
    return result


async def _many(proxy: Running, streams: int) -> tuple[int, int, int]:
    load = Load(proxy.port, bodies(500, 1500, stream=True, max_tokens=4), 200, cut_every=10)
    try:
        await load.start()
        await load.until(lambda counts: counts.requests + counts.cut >= streams, 60 + streams / 100)
    finally:
        await load.stop()
    return load.counts.requests, load.counts.cut, load.counts.errors


def _open_tickets(proxy: Running) -> int | None:
    """What Tidegate's admin API says; None for other products."""
    if not proxy.proxy.name.startswith("tidegate"):
        return None
    value = http_json(proxy.admin, "GET", "/v1/replicas")["open_tickets"]
    assert isinstance(value, int)
    return value
