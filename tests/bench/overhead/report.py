"""The table, the file, and how the figures stand against the bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.overhead.measure import LOADS, Figure

Figures = Mapping[str, Mapping[str, Figure]]
"""Load -> proxy -> median figure."""


def show(console: Console, figures: Figures) -> None:
    """CPU per unit, ratio to nginx, throughput and latency."""
    for load, by_proxy in figures.items():
        table = Table(title=LOADS[load].title, title_justify="left", box=None)
        timed = LOADS[load].timed
        for column in ("proxy", "CPU us a unit", "x nginx", "units/s", "p50 ms", "p99 ms", "added p50 ms", "errors"):
            if timed or "ms" not in column:
                table.add_column(column, justify="left" if column == "proxy" else "right")
        nginx, direct = by_proxy.get("nginx"), by_proxy.get("direct")
        for name, figure in by_proxy.items():
            cells = [
                name,
                "" if name == "direct" else f"{figure.cpu_us:.1f}",
                f"{figure.cpu_us / nginx.cpu_us:.2f}" if nginx and name != "direct" else "",
                f"{figure.per_s:.0f}",
            ]
            if timed:
                added = figure.p50_ms - direct.p50_ms if direct and figure.p50_ms and direct.p50_ms else None
                cells += [_ms(figure.p50_ms), _ms(figure.p99_ms), _ms(added)]
            table.add_row(*cells, str(figure.errors))
        console.print(table)
        console.print()


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def bars(figures: Figures, growth: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(what, measured, at most) for each bar that these figures can answer."""
    found: list[tuple[str, float, float]] = []

    def cpu(load: str, proxy: str) -> float | None:
        figure = figures.get(load, {}).get(proxy)
        return figure.cpu_us if figure else None

    for load, limit in (("chat", 2.0), ("prompt32k", 2.0), ("streams", 1.5)):
        ours, nginx = cpu(load, "tidegate"), cpu(load, "nginx")
        if ours and nginx:
            found.append((f"{LOADS[load].title}: CPU x nginx", ours / nginx, limit))
    ours = cpu("chat", "tidegate")
    routers = [value for name in ("sglang-router", "vllm-router") if (value := cpu("chat", name))]
    if ours and routers:
        found.append(("1.5 KB chat: CPU x better LLM router", ours / min(routers), 0.5))
    one = figures.get("one", {})
    if "tidegate" in one and "nginx" in one and one["tidegate"].p50_ms and one["nginx"].p50_ms:
        found.append(("one connection: p50 ms above nginx", one["tidegate"].p50_ms - one["nginx"].p50_ms, 0.15))
    return found + _growth_bars(growth)


def _growth_bars(growth: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    found: list[tuple[str, float, float]] = []
    replicas = growth.get("replicas", {}).get("tidegate", {})
    if "4" in replicas and "200" in replicas:
        found.append(("200 replicas: CPU x that at 4", replicas["200"]["cpu_us"] / replicas["4"]["cpu_us"], 1.5))
    streams = growth.get("streams", {}).get("tidegate", {})
    if "100" in streams and "2000" in streams:
        found.append(
            ("2,000 streams: CPU a chunk x that at 100", streams["2000"]["cpu_us"] / streams["100"]["cpu_us"], 1.3)
        )
    memory = growth.get("memory", {}).get("tidegate")
    if memory:
        found.append((f"{memory['streams']} streams: growth of memory", memory["growth_ratio"], 0.05))
        found.append((f"{memory['streams']} streams: tickets open", memory["open_tickets"], 0))
    return found


def show_bars(console: Console, found: list[tuple[str, float, float]]) -> None:
    """One line a bar."""
    table = Table(title="Bars", title_justify="left", box=None)
    for column in ("bar", "measured", "at most", ""):
        table.add_column(column, justify="left" if column in ("bar", "") else "right")
    for what, value, limit in found:
        table.add_row(what, f"{value:.3f}", f"{limit:g}", "met" if value <= limit else "MISSED")
    console.print(table)
