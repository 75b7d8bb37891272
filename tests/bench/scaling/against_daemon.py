"""The exact engine against the real thing: the same requests through the model and over real sockets.

    python -m tests.bench.scaling.against_daemon               # five minutes
    python -m tests.bench.scaling.against_daemon --speed 2     # three, on an idle machine

Eight simulated replicas (`tidegate mock-runtime`) behind the real process, an open-loop client, and the same requests
in `autoscaler.sim.exact`. Prints percentiles in model seconds; exits with 1 when any differs by more than 10 %
and 20 ms of wall time. On a busy machine run it with `nice -n -15`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from autoscaler.sim.calibration import Fixed
from autoscaler.sim.exact import ExactEngine, plant_settings
from autoscaler.sim.replica_model import ReplicaModel
from autoscaler.sim.start_up import SCENARIOS as START_UPS
from autoscaler.sim.workload import Lengths, Load
from tests.bench.routing.arena import Arena
from tests.bench.routing.outcome import Figures, Outcome, figures
from tests.bench.routing.scenarios import CHAT_CAPACITY, REPLICAS, Scenario
from tests.bench.routing.workload import SERVEGEN, Item, lengths, poisson

ROOT = Path(__file__).parents[3]
SECONDS, LOAD = 200, 0.75
PROXY = "tidegate-least-requests"
NAMES = ("ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "e2e_mean", "e2e_p50", "e2e_p90", "e2e_p99")
MOST = 0.10
WALL_S = 0.02
"""Wall seconds by which two figures may differ anyway: sockets and processes that wait for the processor are not in the
model, and half of all first tokens come within 60 ms."""
_PATIENCE_S = 300.0
"""Wall seconds; the longest answer takes two minutes."""
_FLUSH_S = 0.2
"""Tokens are sent together five times a second: when the first and the last come is what counts, and the rest is work
that would only delay them."""
_AFTER_S = 300
"""For the last answers to end."""


def requests(seed: int) -> list[Item]:
    return poisson([(1.0, lengths(SERVEGEN, chat=True))], ((0, SECONDS, LOAD * CHAT_CAPACITY),), seed)


def modelled(items: Sequence[Item], warm_s: float) -> Figures:
    """The same requests in the exact engine."""
    seconds = SECONDS + _AFTER_S
    load = Load(np.zeros(seconds, dtype=np.int64), 0, 0.0, np.zeros(seconds), 0.0)
    nothing = Lengths(np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64))
    engine = ExactEngine(
        load, nothing, Fixed(REPLICAS), ReplicaModel(), START_UPS["warm"], seed=1, max_replicas=REPLICAS,
        settings=plant_settings("least-requests"),
        requests=[(one.at_s, one.prompt_tokens, one.output_tokens) for one in items],
    )  # fmt: skip
    engine.finished = []
    engine.play()
    known = {arrived: (first, end) for arrived, first, end in engine.finished}
    outcomes = []
    for item in items:
        first, end = known[item.at_s]
        outcomes.append(Outcome(first - item.at_s, end - item.at_s))
    return figures(items, outcomes, warm_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=1.0, help="model seconds per wall second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=ROOT / "tests" / "bench" / "out" / "against_daemon.json")
    options = parser.parse_args()
    items = requests(options.seed)
    scenario = Scenario("model", "8 equal replicas", partial(requests, options.seed))
    with Arena(options.speed, _PATIENCE_S, _FLUSH_S) as arena:
        real, cpu_s = arena.run(PROXY, scenario, items, options.seed)
    model = modelled(items, scenario.warm_s)
    table = Table(title=f"{len(items)} requests at {LOAD:.0%} of {REPLICAS} replicas, model seconds")
    for name in ("figure", "daemon", "exact engine", "difference"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    worst, met = 0.0, not real.failures
    for name in NAMES:
        ours, theirs = getattr(model, name), getattr(real, name)
        if abs(ours - theirs) > WALL_S * options.speed:
            worst = max(worst, abs(ours / theirs - 1.0))
        table.add_row(name, f"{theirs:.3f}", f"{ours:.3f}", f"{ours / theirs - 1.0:+.1%}")
    console = Console()
    console.print(table)
    met = met and worst <= MOST
    console.print(
        f"{'met' if met else 'MISSED'}: at most {worst:.1%} apart beyond {1000 * WALL_S:g} ms (bar {MOST:.0%})",
        highlight=False,
    )
    console.print(
        f"failures: {real.failures or 'none'}; late by the machine: the client {real.late_p99_s:.3f} s (p99), the "
        f"replicas {real.replica_late_max_s:.3f} s at most; {cpu_s:.1f} s of CPU in the proxy",
        highlight=False,
    )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"daemon": real.as_json(), "exact": model.as_json()}, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
