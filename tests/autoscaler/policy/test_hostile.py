"""Whatever is in the file, reading it ends in a policy or in a list of problems, never in another exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autoscaler.policy.load import parse
from autoscaler.policy.schema import Policy
from lb.yaml_document import DocumentError, Problem, read_document

PRODUCTION = (Path(__file__).parents[3] / "deploy" / "policies" / "production.yaml").read_text()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def paths(value: Any, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a document."""
    found = [prefix] if prefix else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*prefix, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += paths(inner, (*prefix, index))
    return found


DOCUMENT = read_document(PRODUCTION).plain()
PATHS = paths(DOCUMENT)


def read(text: str) -> Policy | None:
    """A policy, or None after problems that each name a line of the text and a message."""
    problems: list[Problem] = []
    try:
        return parse(text)
    except DocumentError as error:
        problems = error.problems
    assert problems
    lines = len(text.splitlines()) + 2
    for problem in problems:
        assert 0 <= problem.line <= lines
        assert problem.message
        assert problem.text("p.yaml").isprintable()
    return None


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PATHS), json_values)
@example(("lb", "backends", 0, "url"), "http://[")
@example(("lb", "dns", 0, "name"), "a\nb")
@example(("lb", "keys", 0, "name"), "a\nb")
@example(("lb",), {"a\nb": 1})
def test_any_value_in_any_place(path: tuple[str | int, ...], value: object) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        text = json.dumps(document, allow_nan=False)
    except ValueError:
        text = json.dumps(document).replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")
    read(text)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(PRODUCTION)), st.integers(0, 30), st.text(max_size=10))
def test_any_edit_of_a_good_policy(at: int, removed: int, inserted: str) -> None:
    read(PRODUCTION[:at] + inserted + PRODUCTION[at + removed :])


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=200))
@example("&a [*a]")
@example("? ? ? :")
@example("<<: 3")
@example("<<: [1, 2]")
@example("a: &a {b: *a}")
@example("!!str a")
@example("%YAML 1.1\n---\na")
@example("- -\n -")
@example("\ufeff")
@example("a: !")
@example("|\n a")
def test_any_text(text: str) -> None:
    read(text)


@pytest.mark.parametrize("value", [0, "", [], {}, None, True, "x"])
def test_a_document_that_is_no_mapping(value: object) -> None:
    policy = read(json.dumps(value))
    assert (policy is not None) == (value is None or value == {})


def test_a_good_policy_survives_a_round_trip() -> None:
    assert read(json.dumps(DOCUMENT)) == parse(PRODUCTION)
