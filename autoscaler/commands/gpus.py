"""`tidegate gpus`: the cards of this machine, for people (a table) and for programs (`--json`).

Exit codes: 0 a table was printed, or there is no GPU driver here; 3 the driver is there and did not answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nvml.drivers import make_driver
from nvml.errors import DriverFault
from nvml.owners import OwnerResolver
from nvml.sample import GpuProcess, GpuSnapshot, GpuState, NodeSnapshot, ThrottleReason
from nvml.sampler import Sampler
from nvml.settings import NvmlSettings
from nvml.wire import encode

EXIT_NO_ANSWER = 3
_GIB = 1 << 30
_STYLES = {
    GpuState.OK: "green",
    GpuState.DEGRADED: "yellow",
    GpuState.UNKNOWN: "magenta",
    GpuState.DRAIN: "red",
    GpuState.LOST: "bold red",
}
_NO_DRIVER = {DriverFault.LIBRARY_MISSING, DriverFault.NOT_LOADED}
# How often a first answer is looked for: short enough that a healthy driver's table appears at once.
_POLL_S = 0.02


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(name="gpus", help="Show this machine's GPUs: state and why, memory, load, and who holds them.")(gpus)


def gpus(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show again after every sample, until interrupted.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON (as /v1/node serves it), one line a sample.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between samples.")] = 1.0,
    library: Annotated[
        Path | None, typer.Option(help="The libnvidia-ml.so.1 to load instead of the dynamic linker's choice.")
    ] = None,
) -> None:
    """Reads in a thread of its own, so that a driver that hangs is reported and not waited for."""
    logging.getLogger("nvml").addHandler(logging.NullHandler())  # the table says what the log would
    settings = NvmlSettings(interval_s=interval, deadline_s=max(5.0, interval), library_path=library)
    driver = make_driver(settings)
    if driver is None:
        raise typer.BadParameter("no driver to read with")
    owners = OwnerResolver(settings.owners_refresh_s)
    sampler = Sampler(driver, settings, owners)
    sampler.start()
    code = 0
    try:
        if watch and not as_json:
            code = _show_live(sampler, settings)
        else:
            for node in _snapshots(sampler, settings):
                code = _show_once(node, as_json=as_json)
                if not watch:
                    break
    except KeyboardInterrupt:
        pass
    finally:
        sampler.stop(timeout_s=0.5)
    if code:
        raise typer.Exit(code)


def _snapshots(sampler: Sampler, settings: NvmlSettings) -> Iterator[NodeSnapshot]:
    """Each new reading; and, while the driver does not answer, the last one marked as stale, once per deadline."""
    shown_at = -1.0
    told_at = time.monotonic()
    while True:
        node = sampler.latest()
        now = time.monotonic()
        fresh = node.taken_at > shown_at and node.fault not in (DriverFault.STARTING, DriverFault.HUNG)
        if fresh or now - told_at > settings.deadline_s + _POLL_S:
            shown_at, told_at = node.taken_at, now
            yield node
        time.sleep(_POLL_S)


def _show_once(node: NodeSnapshot, *, as_json: bool) -> int:
    if as_json:
        typer.echo(encode(node, time.monotonic()).decode())
    else:
        Console().print(render(node, time.monotonic()))
    return exit_code(node)


def _show_live(sampler: Sampler, settings: NvmlSettings) -> int:
    code = 0
    with Live(auto_refresh=False) as live:
        try:
            for node in _snapshots(sampler, settings):
                code = exit_code(node)
                live.update(render(node, time.monotonic()), refresh=True)
        except KeyboardInterrupt:
            pass
    return code


def exit_code(node: NodeSnapshot) -> int:
    """See the module."""
    return 0 if node.fault is None or node.fault in _NO_DRIVER else EXIT_NO_ANSWER


def render(node: NodeSnapshot, now: float) -> Group:
    """The whole picture: what is wrong with the driver, the cards, and why any card is not ok."""
    parts: list[Text | Table] = []
    if node.fault in _NO_DRIVER:
        parts.append(Text(f"No NVIDIA driver on this machine: {node.detail}."))
        parts.append(Text("Without one, GPU signals are off and everything else works.", style="dim"))
    elif node.fault is not None:
        parts.append(Text(f"The GPU driver gives no readings ({node.fault.value}): {node.detail}.", style="red"))
    elif not node.gpus:
        parts.append(Text("The NVIDIA driver works, and lists no GPU on this machine."))
    if node.gpus:
        parts.append(_table(node, now))
        parts += [
            Text(f"GPU {gpu.index} is {gpu.state.value}: {reason.detail}.", style=_STYLES[gpu.state])
            for gpu in node.gpus
            for reason in gpu.reasons
        ]
    return Group(*parts)


def _table(node: NodeSnapshot, now: float) -> Table:
    version = f", driver {node.driver_version}" if node.driver_version else ""
    table = Table(title=f"{len(node.gpus)} GPU(s){version}, read {node.age_s(now):.1f} s ago", title_justify="left")
    for name in ("GPU", "Name", "State", "Memory GiB", "Free", "Busy", "Temp", "Power W", "SM MHz", "Held by"):
        table.add_column(name, overflow="fold")
    for gpu in node.gpus:
        table.add_row(
            str(gpu.index),
            f"{gpu.name or '?'}\n{gpu.uuid}",
            Text(gpu.state.value, style=_STYLES[gpu.state]),
            f"{_gib(gpu.memory_used_bytes)} of {_gib(gpu.memory_total_bytes)}",
            _gib(gpu.headroom_bytes),
            "-" if gpu.utilisation_ratio is None else f"{gpu.utilisation_ratio:.0%}",
            "-" if gpu.temperature_c is None else f"{gpu.temperature_c} °C",
            f"{_whole(gpu.power_w)} of {_whole(gpu.power_limit_w)}",
            _clock(gpu),
            _held_by(gpu),
        )
        for instance in gpu.mig:
            used, total = _gib(instance.memory_used_bytes), _gib(instance.memory_total_bytes)
            table.add_row("", f"MIG {instance.index}\n{instance.uuid}", "", f"{used} of {total}")
    return table


def _clock(gpu: GpuSnapshot) -> str:
    clock = f"{_whole(gpu.sm_clock_mhz)} of {_whole(gpu.sm_clock_max_mhz)}"
    limits = [r.value for r in gpu.throttle_reasons or () if r is not ThrottleReason.GPU_IDLE]
    return "\n".join([clock, *limits])


def _held_by(gpu: GpuSnapshot) -> str:
    if gpu.processes is None:
        return "not visible here"
    lines = [_process(process) for process in gpu.processes]
    if gpu.memory_leaked_bytes:
        lines.append(f"nobody: {_gib(gpu.memory_leaked_bytes)} GiB (leaked)")
    return "\n".join(lines) or "-"


def _process(process: GpuProcess) -> str:
    owner = process.owner
    if owner is None:
        who = "unknown"
    elif owner.command and owner.command != owner.name:
        who = f"{owner.name} ({owner.command})"
    else:
        who = owner.name
    ports = "".join(f" :{port}" for port in process.ports)
    return f"{who}{ports} pid {process.pid}: {_gib(process.used_bytes)} GiB"


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / _GIB:.1f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
