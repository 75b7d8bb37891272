"""Tables of a routing comparison, and how Tidegate stands against the bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.routing.outcome import Figures, middle

BOUND = "clairvoyant"
BOUND_SUM = "clairvoyant-sum"
PEERS = ("nginx", "nginx-least-conn", "haproxy-leastconn", "sglang-router", "vllm-router")
LEAST_CONNECTIONS = ("nginx-least-conn", "haproxy-leastconn")
Runs = Mapping[str, Sequence[Figures]]
"""Proxy -> its runs of one scenario."""

_COLUMNS = (
    ("TTFT mean", "ttft_mean"), ("p50", "ttft_p50"), ("p90", "ttft_p90"), ("p99", "ttft_p99"),
    ("E2E mean", "e2e_mean"), ("p50", "e2e_p50"), ("p90", "e2e_p90"), ("p99", "e2e_p99"),
    ("slow mean", "slowdown_mean"), ("p99", "slowdown_p99"),
)  # fmt: skip


def show(console: Console, title: str, runs: Runs) -> None:
    """Medians over runs, model seconds; `±` is half the spread of the headline figures."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("router")
    for heading, _ in _COLUMNS:
        table.add_column(heading, justify="right")
    table.add_column("failed", justify="right")
    table.add_column("hits", justify="right")
    table.add_column("spread")
    for name, turns in runs.items():
        cells = []
        for _, field in _COLUMNS:
            value, spread = middle(turns, field)
            cells.append(f"{value:.2f}±{spread / 2:.2f}" if field in ("ttft_p99", "e2e_mean") else f"{value:.2f}")
        failed = sum(turn.failed_before_token for turn in turns), sum(turn.failed_after_token for turn in turns)
        hits = turns[0].hit_ratio
        counts = turns[-1].spread
        table.add_row(
            name, *cells, f"{failed[0]}+{failed[1]}", "" if hits is None else f"{hits:.0%}",
            f"{min(counts)}..{max(counts)}" if counts else "",
        )  # fmt: skip
    console.print(table)
    late = max(max(turn.late_p99_s for turn in turns) for turns in runs.values())
    worst = max(max(turn.replica_late_max_s for turn in turns) for turns in runs.values())
    console.print(
        f"lag in model seconds: generator p99 {late:.3f} at worst, replicas' timers {worst:.3f} at worst; "
        "failed: before + after the first token\n"
    )


def standing(scenario: str, runs: Runs) -> list[dict[str, Any]]:
    """Tidegate against the best peer and on the way to the bound, for one scenario.

    A peer that fails more requests is no measure for latency: the requests that it answered met emptier replicas.
    """
    ours = runs.get("tidegate")
    peers = {name: turns for name, turns in runs.items() if name in PEERS}
    if not ours or not peers:
        return []
    failed = {name: _failed(turns) for name, turns in runs.items()}
    fewest = min(peers, key=lambda name: failed[name])
    found: list[dict[str, Any]] = [
        {"scenario": scenario, "figure": "failed", "tidegate": failed["tidegate"], "best_peer": fewest,
         "peer": failed[fewest], "spread": 0.0, "verdict": "best" if failed["tidegate"] <= failed[fewest] else "BEHIND"}
    ]  # fmt: skip
    peers = {name: turns for name, turns in peers.items() if failed[name] <= failed["tidegate"]}
    if not peers:
        return found
    for field in ("e2e_mean", "ttft_p99"):
        mine, my_spread = middle(ours, field)
        best = min(peers, key=lambda name: middle(peers[name], field)[0])
        value, spread = middle(peers[best], field)
        verdict = "best" if mine <= value else "tie" if mine - value < max(spread, my_spread) else "BEHIND"
        found.append(
            {"scenario": scenario, "figure": field, "tidegate": mine, "best_peer": best, "peer": value,
             "spread": max(spread, my_spread), "verdict": verdict, **_shares(field, mine, runs)}
        )  # fmt: skip
    return found


def _failed(turns: Sequence[Figures]) -> float:
    """Requests a run, failed before or after their first token."""
    return sum(turn.failed_before_token + turn.failed_after_token for turn in turns) / len(turns)


def _shares(field: str, mine: float, runs: Runs) -> dict[str, float]:
    """How much of the way from least connections to each bound: 1 is the bound."""
    least = [middle(runs[name], field)[0] for name in LEAST_CONNECTIONS if name in runs]
    shares: dict[str, float] = {}
    for bound in (BOUND, BOUND_SUM):
        if bound in runs and least:
            gap = min(least) - middle(runs[bound], field)[0]
            shares[f"way_to_{bound}"] = (min(least) - mine) / gap if gap else float("nan")
    return shares


def show_standing(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """One line a scenario and figure."""
    table = Table(title="Tidegate against the best peer", title_justify="left", box=None, pad_edge=False)
    for column in ("scenario", "figure", "tidegate", "best peer", "", "spread", "verdict", "way to bound", "(sum)"):
        table.add_column(
            column, justify="left" if column in ("scenario", "figure", "best peer", "verdict") else "right"
        )
    for row in found:
        ways = [row.get(f"way_to_{bound}") for bound in (BOUND, BOUND_SUM)]
        table.add_row(
            row["scenario"], row["figure"], f"{row['tidegate']:.3f}", row["best_peer"], f"{row['peer']:.3f}",
            f"{row['spread']:.3f}", row["verdict"], *("" if way is None else f"{way:.0%}" for way in ways),
        )  # fmt: skip
    console.print(table)
