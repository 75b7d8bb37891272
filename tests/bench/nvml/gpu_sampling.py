"""What reading GPUs costs: CPU per sample, lag of the event loop while a call hangs, memory over a day of samples.

    python tests/bench/nvml/gpu_sampling.py [--out FILE] [--hang-s 30] [--day-gpus 8] [--quick]

Runs against the scripted libnvidia-ml.so.1 of `tests/nvml/stub`, whose calls take next to no time, so what is
measured is ours: pynvml,
ctypes, records, owners, health. Prints a table, and writes JSON with `--out`. Exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nvml.drivers.nvidia import NvidiaDriver
from nvml.owners import OwnerResolver
from nvml.sampler import Sampler
from nvml.settings import NvmlSettings
from nvml.wire import encode

SOURCE = Path(__file__).resolve().parents[2] / "nvml" / "stub" / "libnvidia_ml.c"
MAX_SAMPLE_CPU_S = 0.005  # for 8 cards, beyond the library's own calls
MAX_LAG_S = 0.010  # added by a hung call
MAX_TRACED_GROWTH_BYTES = 64 * 1024
MAX_RESIDENT_GROWTH_BYTES = 1 << 20  # what the allocator may keep of its own free lists; a leak of 13 bytes a sample
DAY_SAMPLES = 86_400
LISTENER = "import socket; s = socket.create_server(('127.0.0.1', 0)); input()"


class Stub:
    """The stub library, built into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "libnvidia-ml.so.1"
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise SystemExit("this benchmark builds a library and needs a C compiler: install gcc or clang")
        flags = ["-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-Wl,-soname,libnvidia-ml.so.1"]
        subprocess.run([compiler, *flags, "-o", str(self.path), str(SOURCE)], check=True)
        self._library = ctypes.CDLL(str(self.path))
        self._library.stub_calls.restype = ctypes.c_long

    def say(self, *commands: str) -> None:
        for line in commands:
            if self._library.stub_command(line.encode()):
                raise SystemExit(f"the stub does not understand {line!r}")

    @property
    def calls(self) -> int:
        return int(self._library.stub_calls())


@contextlib.contextmanager
def listeners(count: int) -> Iterator[list[int]]:
    """Processes that each listen on a port, as replicas do."""
    children = [subprocess.Popen([sys.executable, "-c", LISTENER], stdin=subprocess.PIPE) for _ in range(count)]
    try:
        time.sleep(1.0)
        yield [child.pid for child in children]
    finally:
        for child in children:
            child.communicate(b"\n")


def sample_cost(stub: Stub, gpus: int, samples: int) -> dict[str, Any]:
    """CPU seconds of this process per round, owners included, one process per card; best of five repetitions."""
    with listeners(gpus) as pids:
        stub.say("reset", f"gpus {gpus}", *[f"proc {gpu} {pid} 1073741824" for gpu, pid in enumerate(pids)])
        settings = NvmlSettings()
        now = [0.0]
        owners = OwnerResolver(settings.owners_refresh_s)
        sampler = Sampler(NvidiaDriver(stub.path), settings, owners, clock=lambda: now[0])
        sampler.declare_ports([1])
        sampler.step()
        best = float("inf")
        before_calls = stub.calls
        for _ in range(5):
            began = time.process_time()
            for _ in range(samples):
                now[0] += settings.interval_s
                node = sampler.step()
            best = min(best, (time.process_time() - began) / samples)
        calls = (stub.calls - before_calls) / (5 * samples)
        found = sum(1 for gpu in node.gpus for process in gpu.processes or () if process.ports)
        began = time.process_time()
        for _ in range(samples):
            message = encode(node, now[0])
        wire = (time.process_time() - began) / samples
        sampler.stop()
    return {
        "gpus": gpus,
        "cpu_ms_per_sample": best * 1e3,
        "library_calls_per_sample": calls,
        "processes_with_ports": found,
        "wire_cpu_ms": wire * 1e3,
        "wire_bytes": len(message),
    }


async def worst_lag(seconds: float) -> tuple[float, float]:
    """(longest, 99th percentile) delay of a 1 ms timer."""
    loop, lags = asyncio.get_running_loop(), []
    until = loop.time() + seconds
    while (before := loop.time()) < until:
        await asyncio.sleep(0.001)
        lags.append(loop.time() - before - 0.001)
    lags.sort()
    return lags[-1], lags[int(len(lags) * 0.99)]


async def hang_lag(stub: Stub, function: str, seconds: float) -> dict[str, Any]:
    """Lag for `seconds` without a hang, then for as long while `function` hangs."""
    stub.say("reset", "gpus 8")
    quiet, quiet_p99 = await worst_lag(seconds)
    stub.say(f"on {function} hang_ms={int((seconds + 1) * 1000)}")
    sampler = Sampler(NvidiaDriver(stub.path), NvmlSettings(interval_s=0.1, deadline_s=0.5))
    sampler.start()
    hung, hung_p99 = await worst_lag(seconds)
    node = sampler.latest()
    stub.say(f"on {function}")
    ended = await asyncio.to_thread(sampler.stop, 10.0)
    return {
        "function": function,
        "hang_s": seconds,
        "named": "" if node.hung is None else node.hung.call,
        "quiet_max_ms": quiet * 1e3,
        "hung_max_ms": hung * 1e3,
        "quiet_p99_ms": quiet_p99 * 1e3,
        "hung_p99_ms": hung_p99 * 1e3,
        "thread_ended": ended,
    }


def day_of_samples(stub: Stub, gpus: int, samples: int) -> dict[str, Any]:
    """Resident memory over a day of samples with faults passing by, and after it traced Python memory over an hour."""
    stub.say("reset", f"gpus {gpus}")
    now = [0.0]
    sampler = Sampler(
        NvidiaDriver(stub.path), NvmlSettings(reopen_lost_s=60), OwnerResolver(10.0), clock=lambda: now[0]
    )
    began = time.process_time()

    def run(count: int) -> None:
        for number in range(count):
            if number % 600 == 0:
                stub.say(
                    "reset",
                    f"gpus {gpus}",
                    f"proc 0 {os.getpid()} 1024",
                    f"proc 0 {number + 2} 1024",
                    f"xid 0 {number // 600 % 172}",
                )
            if number % 3600 == 900:
                stub.say("on nvmlDeviceGetMemoryInfo_v2 gpu=0 ret=15")
            if number % 3600 == 2100:
                stub.say("on nvmlDeviceGetCount_v2 ret=18")
            sampler.step()
            sampler.latest()
            now[0] += 1

    run(3600)
    gc.collect()
    resident = _resident_bytes()
    run(samples)
    gc.collect()
    resident_grown = _resident_bytes() - resident
    tracemalloc.start()
    run(3600)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    run(3600)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    sampler.stop()
    return {
        "gpus": gpus,
        "samples": samples,
        "traced_growth_bytes": grown,
        "resident_growth_bytes": resident_grown,
        "cpu_s": time.process_time() - began,
    }


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hang-s", type=float, default=30.0)
    parser.add_argument("--day-gpus", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="2 s hangs and an hour of samples instead of a day")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    hang_s, samples = (2.0, 3600) if options.quick else (options.hang_s, DAY_SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        stub = Stub(Path(folder))
        costs = [sample_cost(stub, gpus, 200) for gpus in (1, 8)]
        functions = ["nvmlInitWithFlags", "nvmlDeviceGetMemoryInfo_v2", "nvmlEventSetWait_v2"]
        hangs = [asyncio.run(hang_lag(stub, function, hang_s)) for function in functions]
        day = day_of_samples(stub, options.day_gpus, samples)
    missed = report(costs, hangs, day)
    if options.out:
        options.out.write_text(
            json.dumps({"cost": costs, "hang": hangs, "day": day, "missed": missed}, indent=1) + "\n"
        )
    return 1 if missed else 0


def report(costs: list[dict[str, Any]], hangs: list[dict[str, Any]], day: dict[str, Any]) -> list[str]:
    """Prints the table; returns the bars that were missed."""
    table = Table("what", "measured", "bar")
    missed = []
    for row in costs:
        bar = "5 ms" if row["gpus"] == 8 else ""
        calls = f"{row['library_calls_per_sample']:.0f} library calls"
        table.add_row(f"CPU per sample, {row['gpus']} GPU(s), {calls}", f"{row['cpu_ms_per_sample']:.2f} ms", bar)
        table.add_row(
            f"snapshot as JSON, {row['gpus']} GPU(s), {row['wire_bytes']} bytes", f"{row['wire_cpu_ms']:.2f} ms", ""
        )
        if row["gpus"] == 8 and row["cpu_ms_per_sample"] > MAX_SAMPLE_CPU_S * 1e3:
            missed.append("CPU per sample")
    for row in hangs:
        added = row["hung_max_ms"] - row["quiet_max_ms"]
        text = f"{row['quiet_max_ms']:.1f} → {row['hung_max_ms']:.1f} ms"
        text += f" (p99 {row['quiet_p99_ms']:.2f} → {row['hung_p99_ms']:.2f})"
        table.add_row(f"worst loop lag, {row['function']} hung for {row['hang_s']:.0f} s", text, "+10 ms")
        if added > MAX_LAG_S * 1e3 or not row["named"] or not row["thread_ended"]:
            missed.append(f"lag while {row['function']} hangs")
    table.add_row(
        f"resident memory over {day['samples']} samples of {day['gpus']} GPU(s)",
        f"{day['resident_growth_bytes'] / 2**20:+.2f} MiB",
        "+1 MiB",
    )
    table.add_row("traced Python memory over 3600 samples", f"{day['traced_growth_bytes']:+d} bytes", "+64 KiB")
    if day["resident_growth_bytes"] > MAX_RESIDENT_GROWTH_BYTES:
        missed.append("resident memory over a day")
    if day["traced_growth_bytes"] > MAX_TRACED_GROWTH_BYTES:
        missed.append("traced memory")
    Console(width=150).print(table)
    for name in missed:
        print(f"missed: {name}")
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
