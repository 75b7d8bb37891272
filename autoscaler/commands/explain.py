"""`tidegate explain POOL`: why a pool has its size, now or at a time in the past."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from autoscaler.errors import EXIT_BAD_INPUT, StartError

_EPILOG = """\b
TIME is RFC 3339 (2026-03-01T14:05:00+01:00, without an offset: local time), HH:MM or HH:MM:SS of today, or how long
ago (10m, 2h30m). Decisions that changed something are kept for a month, those between them for a day
(`store.decisions`, `store.ordinary`).

\b
Examples:
  tidegate explain chat
  tidegate explain chat --at 14:05
  tidegate explain chat --at 2h --store /var/lib/tidegate

\b
Exit codes: 0 printed, 1 nobody answers or nothing is known, 2 wrong command line.
"""
_TIMEOUT_S = 10.0
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?\Z")
_WIDTH = 13


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain", epilog=_EPILOG)(explain)


def explain(
    pool: Annotated[str, typer.Argument(help="Name of the pool in the policy.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Moment to explain.", show_default="now")
    ] = None,
    admin: Annotated[str, typer.Option(metavar="ADDR", help="Admin API of the daemon.")] = "127.0.0.1:9400",
    admin_token: Annotated[str | None, typer.Option(metavar="REF", help="env:NAME of the admin token.")] = None,
    store: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Read the daemon's store.directory instead of asking it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Why a pool has its size: the decision, every proposal, what bound, and what would have changed it."""
    now = time.time()
    try:
        instant = None if at is None else parse_time(at, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from None
    if store is not None:
        found = from_store(store, pool, now if instant is None else instant)
    else:
        found = from_api(admin, admin_token, pool, instant)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for line in lines(found, now):
            typer.echo(line)


# ---------------------------------------------------------------------- where from


def from_store(path: Path, pool: str, at: float) -> dict[str, Any]:
    """Raises StartError."""
    from autoscaler.loops.report import explained
    from autoscaler.store import STORE_FILE, StoreError, StoreFile

    try:
        file = StoreFile.open_for_reading(path / STORE_FILE if path.is_dir() else path)
        decision, pools = file.decision(pool, at), file.pools()
        file.close()
    except StoreError as error:
        raise StartError(str(error)) from None
    if decision is None:
        known = ", ".join(pools) or "none"
        raise StartError(f"no decision on pool {pool!r} is known at that time; pools with decisions: {known}")
    return explained(decision)


def from_api(admin: str, token: str | None, pool: str, at: float | None) -> dict[str, Any]:
    """Raises StartError."""
    query = "" if at is None else f"?at={at:.3f}"
    base = admin if admin.startswith(("http://", "https://")) else f"http://{admin}"
    url = f"{base}/v1/pools/{urllib.parse.quote(pool, safe='')}{query}"
    request = urllib.request.Request(url)  # noqa: S310 - http or https
    if token is not None:
        request.add_header("Authorization", f"Bearer {_secret(token)}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310 - see above
            return dict(json.load(reply))
    except urllib.error.HTTPError as error:
        raise StartError(f"{admin}: {_message(error)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        hint = "name the daemon's admin address with --admin"
        raise StartError(f"{admin} does not answer ({reason}): {hint}") from None


def _secret(reference: str) -> str:
    name = reference.removeprefix("env:")
    if name == reference or name not in os.environ:
        raise StartError(f"--admin-token {reference}: write env:NAME of a variable that is set", EXIT_BAD_INPUT)
    return os.environ[name]


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def parse_time(text: str, now: float) -> float:
    """Epoch seconds. Raises ValueError with what would be right."""
    clock = _CLOCK.match(text)
    try:
        if clock is not None:
            hour, minute, second = (int(part or 0) for part in clock.groups())
            today = datetime.fromtimestamp(now).astimezone()
            at = today.replace(hour=hour, minute=minute, second=second, microsecond=0)
            return (at if at.timestamp() <= now else at - timedelta(days=1)).timestamp()
        if text[:1].isdigit() and text[-1:] in "smh":
            return now - _duration_s(text)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 2026-03-01T14:05:00+01:00, 14:05 (today), or 10m (ago)") from None
    return (at if at.tzinfo is not None else at.astimezone()).timestamp()


def _duration_s(text: str) -> float:
    from pydantic import TypeAdapter

    from lb.settings.durations import Seconds

    return TypeAdapter[float](Seconds).validate_python(text)


# ---------------------------------------------------------------------- for people


def lines(found: Mapping[str, Any], now: float) -> Iterator[str]:
    """A decision in words."""
    record: Mapping[str, Any] = found.get("record") or {}
    at = datetime.fromtimestamp(found["at"]).astimezone()
    yield f"{found['sentence']}"
    yield _row("decided", f"{at:%Y-%m-%d %H:%M:%S %Z}, {_ago(now - found['at'])} ago, mode {record.get('mode')}")
    counts = f"{record.get('desired')} wanted, {record.get('supply')} there or starting, {record.get('ready')} ready"
    yield _row("size", f"{counts}; {_number(record.get('cost_per_hour'))} an hour")
    yield _row("decided by", f"{record.get('binding')}: {record.get('reason')}")
    yield _row("would change", str(record.get("would_change") or "nothing known"))
    yield _row("demand", _demand(record))
    yield _row("capacity", _capacity(record))
    heading = "sources"
    for one in record.get("proposals") or ():
        keep = "cannot tell" if one["keep"] is None else f"keeps {_number(one['keep'])}"
        yield _row(heading, f"{one['source']:<11} wants {_number(one['want'])}, {keep}: {one['reason']}")
        heading = ""
    forecast = record.get("forecast")
    if forecast:
        trust = "may act" if forecast["trusted"] else "may not act"
        yield _row("forecast", f"{forecast['model']}, {trust}: {forecast['reason']}")
    yield _row("not usable", ", ".join(record.get("bad") or ()) or "nothing; every reading was good")
    heading = "done"
    for one in record.get("actions") or ():
        error = f" FAILED: {one['error']}" if one["error"] else ""
        yield _row(heading, f"{one['action']} {one['about']} ({one['reason']}){error}")
        heading = ""
    fault = "; ".join(part for part in (record.get("fault"), record.get("loop_fault")) if part)
    if fault:
        yield _row("FAULT", fault)
    heading = "replicas"
    for one in found.get("replicas") or ():
        yield _row(heading, f"{one['id']}: {one['phase']}, {one['in_flight'] or 0} requests  {one['detail']}")
        heading = ""


def _row(heading: str, text: str) -> str:
    return f"  {heading:<{_WIDTH}}{text}"


def _demand(record: Mapping[str, Any]) -> str:
    demand, band = record.get("demand"), record.get("band")
    text = "not known" if demand is None else f"{_number(demand)}/s now"
    if band:
        middle, level, cap = band
        text += (
            f"; {_number(middle)}/s expected at the lead time by {record.get('predictor')}, provisioned for "
            f"{_number(level)}/s (score {_number(record.get('score'))}), never for more than {_number(cap)}/s"
        )
    return text


def _capacity(record: Mapping[str, Any]) -> str:
    unit = record.get("per_replica")
    text = "of a replica not known yet" if unit is None else f"{_number(unit)}/s a replica"
    p50, p95 = _number(record.get("lead_p50_s")), _number(record.get("lead_p95_s"))
    text += f"; a start takes {p50} s, one in twenty more than {p95} s"
    for kind, stages in (record.get("start_stages") or {}).items():
        if stages:
            parts = ", ".join(f"{stage} {_number(one['p50_s'])} s" for stage, one in stages.items())
            text += f" ({kind}: {parts})"
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _ago(seconds: float) -> str:
    whole = max(0, round(seconds))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"
