"""The memory facts: loaded, foreign, headroom, leaked. Each is `None` when it cannot be told.

Engines reserve most of a card when they start, so used memory says what is *placed* on a card and what still *fits*,
never
how busy it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from nvml.sample import GpuProcess, GpuReading, GpuSnapshot

# An engine's footprint varies by a few percent between starts (CUDA graphs, allocator rounding), so 95 % counts as
# reached.
FOOTPRINT_REACHED_RATIO = 0.95


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """In bytes. Definitions:

    - headroom: what the driver would hand out now. Total less used less reserved, or the driver's own figure for free
      where that is smaller.
    - loaded: the sum over processes that serve one of the declared ports.
    - foreign: the sum over all other processes.
    - unowned: used, less the sum over all processes: what no living process holds. Becomes `leaked` when it lasts.
    """

    headroom_bytes: int | None
    loaded_bytes: int | None
    foreign_bytes: int | None
    unowned_bytes: int | None


def memory_facts(reading: GpuReading, replica_ports: Set[int] | None) -> MemoryFacts:
    """`replica_ports`: the TCP ports of the replicas on this machine; None when nobody has declared them."""
    loaded = foreign = None
    if replica_ports is not None and reading.processes is not None:
        mine = [p for p in reading.processes if not replica_ports.isdisjoint(p.ports)]
        others = [p for p in reading.processes if replica_ports.isdisjoint(p.ports)]
        loaded, foreign = _sum(mine), _sum(others)
    unowned = None
    if reading.memory_used_bytes is not None and reading.processes is not None:
        held = _sum(reading.processes)
        unowned = None if held is None else max(0, reading.memory_used_bytes - held)
    return MemoryFacts(_headroom(reading), loaded, foreign, unowned)


def _headroom(reading: GpuReading) -> int | None:
    total, used, free = reading.memory_total_bytes, reading.memory_used_bytes, reading.memory_free_bytes
    if total is None or used is None:
        return free
    left = max(0, total - used - (reading.memory_reserved_bytes or 0))
    return left if free is None else min(left, free)


def _sum(processes: Iterable[GpuProcess]) -> int | None:
    total = 0
    for process in processes:
        if process.used_bytes is None:
            return None
        total += process.used_bytes
    return total


def footprint_reached(gpus: Iterable[GpuSnapshot], port: int, expected_bytes: int) -> bool | None:
    """Whether the replica on `port` holds its expected footprint, summed over its cards: the model is *loaded*.

    None when a process's memory is not known, or no process could be tied to the port at all.
    """
    held = [p for gpu in gpus for p in gpu.processes or () if port in p.ports]
    if not held:
        return None
    total = _sum(held)
    return None if total is None else total >= FOOTPRINT_REACHED_RATIO * expected_bytes


def fits(gpu: GpuSnapshot, needed_bytes: int, *, restart: bool = False) -> bool | None:
    """Whether an allocation fits now, or after the declared replicas on the card have gone (`restart`)."""
    room = gpu.restart_headroom_bytes if restart else gpu.headroom_bytes
    return None if room is None else room >= needed_bytes
