"""`python -m tests.bench.routing`: how well requests are placed, real proxies over real sockets in model time."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench.processes import raise_fd_limit
from tests.bench.proxies import PROXIES
from tests.bench.proxy import MissingPeerError
from tests.bench.routing.arena import Arena
from tests.bench.routing.oracle import clairvoyant, clairvoyant_sum, play
from tests.bench.routing.outcome import Figures
from tests.bench.routing.report import BOUND, BOUND_SUM, PEERS, show, show_standing, standing
from tests.bench.routing.scenarios import REPLICAS, SCENARIOS, Scenario
from tests.bench.routing.workload import Item

OUT = Path(__file__).parents[1] / "out"
_ATTEMPTS = 3
_BOUNDS = {BOUND: clairvoyant, BOUND_SUM: clairvoyant_sum}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-routing", description=__doc__)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="of " + ", ".join(SCENARIOS))
    parser.add_argument("--only", default=",".join((BOUND, BOUND_SUM, *PEERS, "tidegate")),
                        help=f"routers: {BOUND}, {BOUND_SUM}, {', '.join(PROXIES)}")  # fmt: skip
    parser.add_argument("--runs", type=int, default=3, help="of each router, on as many different workloads")
    parser.add_argument("--speed", type=float, default=10.0, help="model seconds per wall second")
    parser.add_argument("--flush", type=float, default=0.05, help="least wall seconds between two events of a stream")
    parser.add_argument("--patience", type=float, default=30.0, help="wall seconds after which a client gives up")
    parser.add_argument(
        "--max-lag",
        type=float,
        default=0.5,
        help="model seconds; a run whose generator was later than this (99 %%) is played again, twice",
    )
    parser.add_argument("--quick", action="store_true", help="one run, S1 to S4: for a look, not a figure")
    parser.add_argument("--out", type=Path, default=OUT / "routing.json")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.runs, chosen.scenarios = 1, "S1,S2,S3,S4"
    return chosen


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def available(names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        try:
            if name not in _BOUNDS:
                PROXIES[name]().prepare()
            found.append(name)
        except MissingPeerError as error:
            say(f"LEFT OUT {name}: {error}")
    return found


def one_run(arena: Arena, scenario: Scenario, name: str, items: Sequence[Item], seed: int, max_lag_s: float) -> Figures:
    """One router on one workload; again if the generator did not keep up. Raises RuntimeError if it does not start."""
    for attempt in range(_ATTEMPTS):
        used_s = 0.0
        if name in _BOUNDS:
            models = [scenario.model(replica) for replica in range(REPLICAS)]
            measured = arena.run_direct(scenario, items, play(items, models, _BOUNDS[name]).chosen, seed)
        else:
            measured, used_s = arena.run(name, scenario, items, seed)
        say(
            f"{scenario.name:8} run {seed} {name:18} E2E mean {measured.e2e_mean:7.2f}  TTFT mean "
            f"{measured.ttft_mean:6.3f} p99 {measured.ttft_p99:7.2f}  failed {measured.failures or 0}  "
            f"late p99 {measured.late_p99_s:.3f}/{measured.replica_late_max_s:.3f}  proxy CPU {used_s:.1f} s"
        )
        if measured.late_p99_s <= max_lag_s or attempt == _ATTEMPTS - 1:
            break
        say("         the generator was late; again")
    return measured


def compare(
    arena: Arena, scenario: Scenario, names: Sequence[str], runs: int, max_lag_s: float
) -> dict[str, list[Figures]]:
    """Every router on the same workloads, in an order that rotates."""
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for seed in range(1, runs + 1):
        items = scenario.items(seed)
        first = (seed - 1) % len(names)
        for name in [*names[first:], *names[:first]]:
            if name in _BOUNDS and scenario.changes:
                continue  # it knows of no faults
            try:
                found[name].append(one_run(arena, scenario, name, items, seed, max_lag_s))
            except RuntimeError as error:
                say(f"{scenario.name} {name}: {error}")
    return {name: turns for name, turns in found.items() if turns}


def main() -> None:
    chosen = arguments()
    raise_fd_limit()
    console = Console(width=200)
    names = available([part for part in chosen.only.split(",") if part])
    table: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    with Arena(chosen.speed, chosen.patience, chosen.flush) as arena:
        for label in chosen.scenarios.split(","):
            scenario = SCENARIOS[label]
            runs = compare(arena, scenario, names, chosen.runs, chosen.max_lag)
            show(console, f"{label}: {scenario.title}", runs)
            table += standing(label, runs)
            raw[label] = {name: [turn.as_json() for turn in turns] for name, turns in runs.items()}
    if table:
        show_standing(console, table)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(
        json.dumps(
            {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "machine": platform.platform(),
                "speed": chosen.speed,
                "runs": raw,
                "standing": table,
            },
            indent=1,
        )
    )
    console.print(f"\nAll runs: {chosen.out}")


main()
