"""Readings against known work on a real card: an allocation of known size, and a matrix product."""

from __future__ import annotations

import os
import threading
import time

from nvml.sample import GpuState, NodeSnapshot
from nvml.sampler import Sampler
from nvml.wire import decode, encode

GIB = 1 << 30
TOLERANCE_BYTES = 16 << 20  # the allocator's granularity, and what the driver sets aside beside an allocation


def used(node: NodeSnapshot) -> int:
    value = node.gpus[0].memory_used_bytes
    assert value is not None
    return value


def test_an_allocation_of_known_size_shows_within_one_sample(card, sampler: Sampler):
    before = used(sampler.step())
    address = card.take(4 * GIB)
    during = used(sampler.step())
    card.give_back(address)
    after = used(sampler.step())
    print(f"used before {before}, during {during}, after {after}: +{during - before} for {4 * GIB}")
    assert abs(during - before - 4 * GIB) <= TOLERANCE_BYTES
    assert abs(after - before) <= TOLERANCE_BYTES


def test_headroom_falls_by_the_allocation(card, sampler: Sampler):
    before = sampler.step().gpus[0].headroom_bytes
    address = card.take(2 * GIB)
    during = sampler.step().gpus[0].headroom_bytes
    card.give_back(address)
    assert before is not None
    assert during is not None
    assert abs(before - during - 2 * GIB) <= TOLERANCE_BYTES


def test_utilisation_rises_under_a_matrix_product_and_falls_after_it(card, wait_for):
    idle = wait_for(lambda node: (node.gpus[0].utilisation_ratio or 0.0) < 0.2, 20.0).gpus[0]
    work = threading.Thread(target=_multiply, args=(card,))
    work.start()
    busy = wait_for(lambda node: (node.gpus[0].utilisation_ratio or 0.0) > 0.8, 20.0).gpus[0]
    work.join()
    print(f"utilisation {idle.utilisation_ratio} → {busy.utilisation_ratio}, {idle.power_w} → {busy.power_w} W")
    wait_for(lambda node: (node.gpus[0].utilisation_ratio or 0.0) < 0.2, 20.0)


def _multiply(card) -> None:
    card._do("cuCtxSetCurrent", card._context)
    card.multiply(2048, 6.0)


def test_this_process_is_listed_with_its_owner_or_the_list_is_not_visible(card, sampler: Sampler):
    address = card.take(GIB)
    processes = sampler.step().gpus[0].processes
    card.give_back(address)
    print("processes:", processes)
    if processes is not None:
        mine = [process for process in processes if process.pid == os.getpid()]
        assert mine
        assert mine[0].owner is not None


def test_every_field_is_read_or_explained(sampler: Sampler):
    node = sampler.step()
    for gpu in node.gpus:
        print(gpu)
        assert gpu.state in (GpuState.OK, GpuState.DEGRADED), gpu.reasons
        assert gpu.temperature_c is not None
        assert gpu.power_w is not None
        assert gpu.sm_clock_mhz is not None
    assert decode(encode(node, 0.0), 0.0).gpus[0].uuid == node.gpus[0].uuid


def test_what_a_sample_costs(sampler: Sampler):
    walls, cpus = [], []
    for _ in range(50):
        wall, cpu = time.monotonic(), time.thread_time()
        sampler.step()
        walls.append(time.monotonic() - wall)
        cpus.append(time.thread_time() - cpu)
    count = len(sampler.latest().gpus)
    wall, cpu = sorted(walls)[25] * 1e3, sorted(cpus)[25] * 1e3
    print(f"{count} GPU(s): median {wall:.2f} ms, worst {max(walls) * 1e3:.2f} ms, CPU {cpu:.2f} ms")
    assert max(walls) < 5.0
