"""`python -m tests.bench.overhead`: what a request costs the proxy, side by side with its peers."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from autoscaler.compiled import described
from tests.bench.overhead.field import Field
from tests.bench.overhead.growth import after_many, by_replicas, by_streams
from tests.bench.overhead.measure import LOADS, Figure, measure, middle
from tests.bench.overhead.report import bars, show, show_bars
from tests.bench.processes import raise_fd_limit
from tests.bench.proxies import PROXIES

OUT = Path(__file__).parents[1] / "out"
PEERS = ("nginx", "haproxy", "sglang-router", "vllm-router", "tidegate")
GROWTHS = ("replicas", "streams", "memory")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-overhead", description=__doc__)
    parser.add_argument("--only", default=",".join(PEERS), help=f"proxies, of {', '.join(PROXIES)}")
    parser.add_argument("--loads", default=",".join(LOADS), help="loads to run; empty: none")
    parser.add_argument("--growth", default=",".join(GROWTHS), help="growth tests to run; empty: none")
    parser.add_argument("--growth-only", default="nginx,tidegate", help="proxies of the growth tests")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each proxy; medians are reported")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--replicas", default="4,32,200")
    parser.add_argument("--streams", default="100,2000,9000")
    parser.add_argument("--memory-streams", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="two short turns, small growth: for a look, not a figure")
    parser.add_argument("--out", type=Path, default=OUT / "overhead.json")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 2, 1.0
        chosen.replicas, chosen.streams, chosen.memory_streams = "4,200", "100,2000", 10_000
    return chosen


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


async def compare(field: Field, names: list[str], loads: list[str], rounds: int, seconds: float) -> Any:
    """Each load: the proxies take turns, several rounds, in an order that rotates."""
    collected: dict[str, dict[str, list[Figure]]] = {load: {} for load in loads}
    backends = field.instant(4)
    direct_port = int(backends[0].rpartition(":")[2])
    for load in loads:
        kind = LOADS[load]
        order = ["direct", *names]
        for turn in range(rounds):
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                if name == "direct":
                    if not kind.timed:
                        continue
                    figure = await measure(kind, direct_port, None, seconds)
                else:
                    with field.running(name, backends) as proxy:
                        figure = await measure(kind, proxy.port, proxy.pid, seconds)
                collected[load].setdefault(name, []).append(figure)
                field.say(f"{load:10} round {turn + 1} {name:16} {figure.cpu_us:8.1f} us a {figure.unit}")
    return collected


async def run(chosen: argparse.Namespace, field: Field, console: Console) -> None:
    names = field.available(listed(chosen.only))
    console.print(f"Tidegate's request path: {described(os.environ)}")
    loads = listed(chosen.loads)
    collected = await compare(field, names, loads, chosen.rounds, chosen.seconds) if loads else {}
    ranks = ["direct", *names]
    figures = {
        load: {name: middle(by_proxy[name]) for name in ranks if name in by_proxy}
        for load, by_proxy in collected.items()
    }
    growing = [name for name in listed(chosen.growth_only) if name in names]
    growth: dict[str, Any] = {}
    wanted = listed(chosen.growth)
    if "replicas" in wanted:
        counts = [int(part) for part in listed(chosen.replicas)]
        growth["replicas"] = await by_replicas(field, growing, counts, max(1, chosen.rounds // 2), chosen.seconds)
    if "streams" in wanted:
        counts = [int(part) for part in listed(chosen.streams)]
        growth["streams"] = await by_streams(field, growing, counts, chosen.seconds * 2)
    if "memory" in wanted:
        growth["memory"] = await after_many(field, growing, chosen.memory_streams)
    show(console, figures)
    found = bars(figures, growth)
    if found:
        show_bars(console, found)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(
        json.dumps(
            {
                "request_path": described(os.environ),
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "machine": platform.platform(),
                "rounds": chosen.rounds,
                "seconds": chosen.seconds,
                "turns": {
                    load: {name: [asdict(figure) for figure in turns] for name, turns in by_proxy.items()}
                    for load, by_proxy in collected.items()
                },
                "growth": growth,
                "bars": [{"bar": what, "measured": value, "at_most": limit} for what, value, limit in found],
            },
            indent=1,
        )
    )
    console.print(f"\nAll turns: {chosen.out}")


def main() -> None:
    chosen = arguments()
    raise_fd_limit()
    console = Console()
    with Field() as field, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(chosen, field, console))


main()
