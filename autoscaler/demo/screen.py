"""What the demo shows: where to look, and a live table of replicas and latency."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoscaler.demo.policy import POOL
from autoscaler.demo.traffic import MODEL, Tally

_SHOWN = 8
"""Sentences of the controller that fit under the table."""


def where_to_look(listen: str, admin: str, backends: Sequence[str], *, own: bool) -> str:
    """The lines that are printed once. `own`: the replicas are the user's, not simulated."""
    body = {"model": "YOUR-MODEL" if own else MODEL, "stream": True, "max_tokens": 40,
            "messages": [{"role": "user", "content": "Hello"}]}  # fmt: skip
    what = (
        f"Tidegate is in front of your replicas: {', '.join(backends)}"
        if own
        else f"Tidegate scales simulated replicas (pool {POOL}); traffic rises for half a minute, falls, and rests"
    )
    return (
        f"{what}\n\n"
        f"  try it     curl -sN http://{listen}/v1/chat/completions -H 'content-type: application/json' "
        f"-d '{json.dumps(body)}'\n"
        f"  replicas   curl -s http://{admin}/v1/replicas\n"
        f"  explain    curl -s http://{admin}/v1/explain/ID   (ID: the x-request-id header of a reply)\n"
        f"  scaling    curl -s http://{admin}/v1/pools   (or: tidegate explain {POOL} --admin {admin})\n"
        f"  metrics    http://{admin}/metrics\n"
        f"  status     http://{admin}/\n\nCtrl-C ends it.\n"
    )


class Story:
    """What the controller has said: each sentence that is new, once."""

    def __init__(self, began: float) -> None:
        self.lines: deque[str] = deque(maxlen=_SHOWN)
        self._began = began
        self._at: object = None

    def hear(self, pools: dict[str, Any] | None) -> list[str]:
        """Take in what `/v1/pools` says; returns what is new and worth a line: something was done."""
        fresh = []
        for pool in (pools or {}).get("pools", []):
            record = pool.get("record") or {}
            if pool.get("at") == self._at or not record.get("actions"):
                continue
            self._at = pool["at"]
            done = ", ".join(f"{one['action']} {one['about']}" for one in record["actions"])
            fresh.append(f"{max(0.0, pool['at'] - self._began):4.0f} s  {pool['sentence']}  [{done}]")
        self.lines.extend(fresh)
        return fresh


def picture(view: dict[str, Any] | None, tally: Tally | None, story: Story | None = None) -> RenderableType:
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
    told = [Text(line) for line in story.lines] if story is not None else []
    return Group(table, Text(""), Text(summary(tally)), Text(""), *told) if tally is not None else table


def summary(tally: Tally) -> str:
    """One line on the traffic."""
    failed = ", ".join(f"{count} x {what}" for what, count in tally.failed.items()) or "none"
    return (
        f"{tally.rate:.1f} requests/s  requests {tally.sent}  failed {failed}  "
        f"first token p50 {_quantile(tally.first_s, 0.5)} p95 {_quantile(tally.first_s, 0.95)}  "
        f"whole answer p50 {_quantile(tally.total_s, 0.5)} "
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
