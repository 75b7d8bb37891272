"""The access log: which requests, which fields, and nothing that is secret."""

from __future__ import annotations

import dataclasses

import pytest

from lb.access_log import AccessLog, Observers
from lb.effects import Outcome
from lb.errors import Reason
from lb.log import Fields, render_text
from lb.proxy.observer import RequestRecord, SilentObserver
from lb.request import SurfaceName

GOOD = RequestRecord(
    request_id="req-1",
    method="POST",
    path="/v1/chat/completions",
    client="203.0.113.9",
    surface=SurfaceName.CHAT,
    model="llama",
    tenant="alice",
    status=200,
    outcome=Outcome.OK,
    reason=None,
    replica_id="http://10.0.0.1:8000",
    decision_reason="least work",
    attempts=1,
    queue_s=0.0,
    ttft_s=0.25,
    duration_s=1.5,
    bytes_in=100,
    bytes_out=2000,
    events=40,
    est_prompt_tokens=20.0,
    est_output_tokens=50.0,
    prompt_tokens=21,
    output_tokens=40,
    cached_tokens=None,
    predicted_s=1.4,
)


def written(mode: str, **changes: object) -> list[Fields]:
    lines: list[Fields] = []
    log = AccessLog(mode, lines.append, lambda: 1_800_000_000.0)  # type: ignore[arg-type]
    log.finished(dataclasses.replace(GOOD, **changes))  # type: ignore[arg-type]
    return lines


def test_a_line_names_the_replica_and_the_reason() -> None:
    [fields] = written("all")
    assert render_text(fields) == (
        "ts=2027-01-15T08:00:00.000Z level=info logger=lb.access msg=request id=req-1 client=203.0.113.9 tenant=alice "
        "method=POST path=/v1/chat/completions surface=chat model=llama status=200 outcome=ok "
        'replica=http://10.0.0.1:8000 why="least work" attempts=1 queue_s=0 ttft_s=0.25 duration_s=1.5 predicted_s=1.4 '
        "events=40 prompt_tokens=21 output_tokens=40"
    )


def test_off_writes_nothing() -> None:
    assert written("off", status=500, outcome=Outcome.SERVER_ERROR) == []


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 0),
        ({"status": 404, "outcome": Outcome.CLIENT_ERROR}, 1),
        ({"outcome": Outcome.TRUNCATED}, 1),
        ({"outcome": Outcome.CLIENT_CLOSED, "status": 499}, 1),
        ({"outcome": None, "reason": Reason.QUEUE_FULL, "status": 429, "replica_id": None}, 1),
        ({"outcome": None, "replica_id": None}, 0),
        ({"attempts": 2}, 1),
        ({"queue_s": 0.5}, 1),
        ({"queue_s": 0.001}, 0),
    ],
)
def test_errors_writes_what_failed_was_retried_or_waited(changes: dict[str, object], count: int) -> None:
    assert len(written("errors", **changes)) == count


def test_l11_the_query_is_left_out() -> None:
    [fields] = written("all", path="/v1/models?api_key=sk-secret&x=1")
    assert "sk-secret" not in render_text(fields)
    assert fields["path"] == "/v1/models"


def test_observers_tells_each() -> None:
    lines: list[Fields] = []
    group = Observers(SilentObserver(), AccessLog("all", lines.append, lambda: 0.0))
    group.finished(GOOD)
    group.refused(Reason.BAD_REQUEST)
    group.connections(1)
    assert len(lines) == 1
