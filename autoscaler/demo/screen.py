"""What the demo shows: where to look, and a live table of replicas and latency."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoscaler.demo.traffic import MODEL, Tally


def where_to_look(listen: str, admin: str, backends: Sequence[str], *, own: bool) -> str:
    """The lines that are printed once. `own`: the replicas are the user's, not simulated."""
    body = {"model": "YOUR-MODEL" if own else MODEL, "stream": True, "max_tokens": 40,
            "messages": [{"role": "user", "content": "Hello"}]}  # fmt: skip
    what = "your" if own else f"{len(backends)} simulated (the last one 2.5 times slower)"
    return (
        f"Tidegate is in front of {what} replicas: {', '.join(backends)}\n\n"
        f"  try it     curl -sN http://{listen}/v1/chat/completions -H 'content-type: application/json' "
        f"-d '{json.dumps(body)}'\n"
        f"  replicas   curl -s http://{admin}/v1/replicas\n"
        f"  explain    curl -s http://{admin}/v1/explain/ID   (ID: the x-request-id header of a reply)\n"
        f"  metrics    http://{admin}/metrics\n"
        f"  status     http://{admin}/\n\nCtrl-C ends it.\n"
    )


def picture(view: dict[str, Any] | None, tally: Tally | None) -> RenderableType:
    """The table; `view` is what the admin API says, None while it does not answer."""
    table = Table(box=None, pad_edge=False)
    for name in ("replica", "state", "in flight", "running", "waiting", "KV", "backlog", "routed"):
        table.add_column(name, justify="left" if name in ("replica", "state") else "right")
    for replica in (view or {}).get("replicas", []):
        table.add_row(
            str(replica["id"]),
            str(replica["state"]),
            str(replica["in_flight"]),
            _number(replica.get("running")),
            _number(replica.get("waiting")),
            _percent(replica.get("kv_usage_ratio")),
            _seconds(replica.get("predicted_backlog_s")),
            _number(replica.get("routed_total")),
        )
    if view is None:
        return Text("the admin API does not answer")
    return Group(table, Text(""), Text(summary(tally))) if tally is not None else table


def summary(tally: Tally) -> str:
    """One line on the traffic."""
    failed = ", ".join(f"{count} x {what}" for what, count in tally.failed.items()) or "none"
    return (
        f"requests {tally.sent}  failed {failed}  first token p50 {_quantile(tally.first_s, 0.5)} "
        f"p95 {_quantile(tally.first_s, 0.95)}  whole answer p50 {_quantile(tally.total_s, 0.5)} "
        f"p95 {_quantile(tally.total_s, 0.95)}  last x-request-id {tally.last_request_id or '-'}"
    )


def _quantile(values: Sequence[float], q: float) -> str:
    return _seconds(sorted(values)[int(q * (len(values) - 1))]) if values else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
