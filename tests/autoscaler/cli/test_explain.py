"""`tidegate explain`: what is printed of a decision, and which moments it understands."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from autoscaler.cli import build
from autoscaler.commands.explain import from_api, lines, parse_time
from autoscaler.errors import StartError
from autoscaler.store import StoredDecision, StoreFile

NOW = datetime(2026, 3, 1, 14, 30).astimezone().timestamp()
RECORD = {
    "mode": "own", "ready": 2, "supply": 3, "desired": 4, "binding": "saturation", "reason": "backlog of 54 s",
    "would_change": "a shorter backlog", "demand": 9.8, "band": [10.0, 12.5, 36.0], "predictor": "momentum",
    "score": 1.2, "per_replica": 2.5, "lead_p50_s": 100.0, "lead_p95_s": 240.0, "cost_per_hour": 10.0,
    "proposals": [
        {"source": "predictive", "want": 3.9, "keep": None, "reason": "demand is stale"},
        {"source": "saturation", "want": 4.0, "keep": 4.0, "reason": "backlog of 54 s"},
    ],
    "bad": ["requests_per_s stale"], "fault": "chat-1 does not finish its drain", "loop_fault": "",
    "actions": [{"action": "scale_up", "about": "chat-2", "reason": "backlog", "error": "no room"}],
    "forecast": {"model": "seasonal", "trusted": False, "reason": "worse than the last value"},
    "start_stages": {"h100": {"weights": {"p50_s": 60.0, "p95_s": 90.0}}},
}  # fmt: skip


def stored(at: float) -> StoredDecision:
    return StoredDecision("chat", at, "chat: up 3 -> 4; saturation: backlog of 54 s", RECORD)


def test_every_part_of_a_decision_is_told() -> None:
    replica = {"id": "chat-1", "phase": "draining", "in_flight": 3, "detail": "drained by an operator"}
    sentence = "chat: up 3 -> 4; saturation: backlog of 54 s"
    found = {"at": NOW - 30, "sentence": sentence, "record": RECORD, "replicas": [replica]}
    text = "\n".join(lines(found, NOW))
    for part in (
        "chat: up 3 -> 4; saturation: backlog of 54 s", "30 s ago, mode own", "4 wanted, 3 there or starting, 2 ready",
        "a shorter backlog", "9.8/s now; 10/s expected at the lead time by momentum, provisioned for 12.5/s",
        "never for more than 36/s", "2.5/s a replica; a start takes 100 s, one in twenty more than 240 s",
        "h100: weights 60 s", "predictive  wants 3.9, cannot tell: demand is stale", "wants 4, keeps 4",
        "seasonal, may not act: worse than the last value", "requests_per_s stale",
        "scale_up chat-2 (backlog) FAILED: no room", "FAULT        chat-1 does not finish its drain",
        "chat-1: draining, 3 requests  drained by an operator",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("10m", 600), ("2h30m", 9000), ("14:05", 1500), ("14:29:30", 30), ("15:00", 84_600), ("2026-03-01T14:00", 1800)],
)
def test_moments_as_people_write_them(text: str, ago_s: float) -> None:
    assert parse_time(text, NOW) == pytest.approx(NOW - ago_s)


def test_a_moment_with_a_zone_is_the_same_everywhere() -> None:
    assert parse_time("2026-03-01T14:05:00+01:00", NOW) == 1772370300.0
    assert parse_time("2026-03-01T13:05:00Z", NOW) == 1772370300.0


@given(st.text(max_size=30))
def test_whatever_is_written_is_understood_or_refused_with_an_example(text: str) -> None:
    refusal = "14:05"
    try:
        moment = parse_time(text, NOW)
    except ValueError as error:
        refusal = str(error)
    else:
        assert isinstance(moment, float)
    assert "14:05" in refusal


def test_a_decision_of_the_past_is_read_from_the_store(tmp_path: Path) -> None:
    path = tmp_path / "tidegate.db"
    file = StoreFile.open(path, wall=NOW)
    file.put_decisions([stored(1_772_370_000.0), stored(1_772_370_600.0)])
    file.close()
    given = ["explain", "chat", "--store", str(path), "--at", "2026-03-01T13:05:00Z"]
    result = CliRunner().invoke(build(), [*given, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["at"] == 1_772_370_000.0
    shown = CliRunner().invoke(build(), given)
    assert shown.output.startswith("chat: up 3 -> 4; saturation: backlog of 54 s\n")
    nothing = CliRunner().invoke(build(), ["explain", "other", "--store", str(tmp_path)])
    assert isinstance(nothing.exception, StartError)
    assert "pools with decisions: chat" in str(nothing.exception)


def test_a_moment_that_is_none_is_refused() -> None:
    result = CliRunner().invoke(build(), ["explain", "chat", "--at", "yesterday"])
    assert result.exit_code == 2
    assert "14:05" in result.output


def test_a_daemon_that_is_not_there_is_named() -> None:
    with pytest.raises(StartError, match=r"127\.0\.0\.1:1 does not answer.*--admin"):
        from_api("127.0.0.1:1", None, "chat", None)


def test_a_token_is_named_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError, match="env:NAME"):
        from_api("127.0.0.1:1", "secret", "chat", None)
