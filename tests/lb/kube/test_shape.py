"""Only the fields that are of interest are read, and errors whole."""

from __future__ import annotations

import json
from typing import Any, TypedDict

import pytest

from lb.kube import Metadata, shape_of


class Status(TypedDict, total=False):
    phase: Any


class Pod(TypedDict, total=False):
    metadata: Metadata
    status: Status


SHAPE = shape_of(Pod)
POD = {
    "kind": "Pod",
    "metadata": {"name": "a", "resourceVersion": "7", "managedFields": [{"manager": "x"}], "labels": {"app": "llm"}},
    "spec": {"containers": [{"image": "x"}]},
    "status": {"phase": "Running", "conditions": [{}]},
}
KEPT = {
    "metadata": {"name": "a", "resourceVersion": "7", "labels": {"app": "llm"}},
    "status": {"phase": "Running"},
}


def test_a_page_and_an_event_have_the_named_fields_only() -> None:
    page = {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "9", "continue": "x"},
        "items": [POD],
    }
    assert SHAPE.page(json.dumps(page).encode()) == {
        "kind": "PodList",
        "metadata": {"resourceVersion": "9", "continue": "x"},
        "items": [KEPT],
    }
    assert SHAPE.event(json.dumps({"type": "ADDED", "object": POD}).encode()) == {"type": "ADDED", "object": KEPT}


def test_an_error_is_read_whole() -> None:
    error = {"type": "ERROR", "object": {"kind": "Status", "metadata": {}, "code": 410, "reason": "Expired"}}
    assert SHAPE.event(json.dumps(error).encode()) == error
    failed = {**error, "object": {**error["object"], "status": "Failure"}}  # type: ignore[dict-item]
    assert SHAPE.event(json.dumps(failed).encode()) == failed


@pytest.mark.parametrize("odd", [{**POD, "status": 3}, {**POD, "metadata": None}, {"items": {}}, [], 7])
def test_what_does_not_fit_is_read_whole(odd: Any) -> None:
    event = {"type": "ADDED", "object": odd}
    assert SHAPE.event(json.dumps(event).encode()) in (event, {"type": "ADDED", "object": {}})
    assert SHAPE.page(json.dumps({"items": [odd]}).encode()) in ({"items": [odd]}, {"items": [{}]})


def test_no_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 1"):
        SHAPE.page(b"<html>")
