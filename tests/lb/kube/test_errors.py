"""What the API server says, and what it means for a caller."""

from __future__ import annotations

import json

import pytest

from lb.kube import (
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    KubeError,
    NotFoundError,
    ThrottledError,
    UnauthorizedError,
    UnavailableError,
)
from lb.kube.errors import LONGEST_RETRY_AFTER_S, error_from

STATUS = {"kind": "Status", "reason": "Because", "message": "it is so"}


@pytest.mark.parametrize(
    ("status", "kind", "lasting"),
    [
        (400, InvalidError, False),
        (401, UnauthorizedError, True),
        (403, ForbiddenError, True),
        (404, NotFoundError, False),
        (409, ConflictError, False),
        (410, GoneError, False),
        (422, InvalidError, False),
        (429, ThrottledError, True),
        (500, UnavailableError, True),
        (503, UnavailableError, True),
        (504, UnavailableError, True),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[KubeError], lasting: bool) -> None:
    error = error_from(status, json.dumps(STATUS), None, "GET /x")
    assert type(error) is kind
    assert (error.lasting, error.status, error.reason) == (lasting, status, "Because")
    assert str(error) == f"GET /x: {status} Because: it is so"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (" 3 ", 3.0), ("0", None), ("-1", None), ("soon", None), ("٣", None), (None, None)],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert error_from(429, b"", header, "GET /x").retry_after_s == seconds


def test_retry_after_from_the_details_and_never_absurdly_long() -> None:
    assert error_from(429, {"details": {"retryAfterSeconds": 4}}, None, "x").retry_after_s == 4.0
    assert error_from(503, b"", "99999999", "x").retry_after_s == LONGEST_RETRY_AFTER_S


def test_a_disruption_budget_is_named_among_the_causes() -> None:
    details = {"causes": [{"reason": "DisruptionBudget", "message": "The budget needs 2"}, "odd"]}
    assert error_from(429, {**STATUS, "details": details}, None, "POST /eviction").causes == ("DisruptionBudget",)


@pytest.mark.parametrize("body", [b"", b"<html>\n<b>502</b>", b"[]", b'{"details": 3, "message": null}', b"\xff\xfe"])
def test_an_answer_that_is_no_status_is_an_error_all_the_same(body: bytes) -> None:
    assert str(error_from(502, body, None, "GET /x")).startswith("GET /x: 502")


def test_messages_are_short() -> None:
    assert len(str(error_from(500, b"x" * 100_000, None, "GET /x"))) < 600
