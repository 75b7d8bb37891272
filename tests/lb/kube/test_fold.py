"""A copy of a collection, whatever order its events come in."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.kube.fold import MOST_GRAVES, Fold


def pod(name: str, version: int | str, value: int = 0) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version)}, "value": value}


def names(fold: Fold) -> set[str]:
    return {name for _, name in fold.objects}


def test_a_list_replaces_everything() -> None:
    fold = Fold()
    assert fold.replace([pod("a", 1), pod("b", 2)], "5")
    assert not fold.replace([pod("a", 1), pod("b", 2)], "6")
    assert fold.replace([pod("b", 2)], "4")
    assert (names(fold), fold.resource_version) == ({"b"}, "4")


def test_a_list_is_the_truth_even_from_an_older_history() -> None:
    fold = Fold()
    fold.replace([pod("a", 900)], "1000")
    fold.replace([pod("a", 40)], "50")
    assert fold.apply("MODIFIED", pod("a", 51, value=1))
    assert fold.resource_version == "51"


def test_an_event_that_comes_again_changes_nothing() -> None:
    fold = Fold()
    fold.replace([], "1")
    assert fold.apply("ADDED", pod("a", 2))
    assert not fold.apply("ADDED", pod("a", 2))
    assert fold.stale == 1


def test_a_late_event_does_not_bring_back_what_is_gone() -> None:
    fold = Fold()
    fold.replace([pod("a", 1)], "1")
    fold.apply("DELETED", pod("a", 5))
    assert not fold.apply("MODIFIED", pod("a", 4, value=9))
    assert names(fold) == set()
    assert fold.apply("ADDED", pod("a", 6)), "one of the same name that was made later"


def test_a_late_event_about_another_object_is_not_lost() -> None:
    fold = Fold()
    fold.replace([], "1")
    fold.apply("ADDED", pod("a", 9))
    assert fold.apply("ADDED", pod("b", 8))
    assert fold.resource_version == "9", "the next watch goes on after all that was seen"


def test_bookmarks_move_on_without_a_change() -> None:
    fold = Fold()
    fold.replace([pod("a", 1)], "1")
    assert not fold.apply("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "77"}})
    assert fold.resource_version == "77"


def test_versions_that_are_no_numbers_are_believed_in_order() -> None:
    fold = Fold()
    fold.replace([], "abc")
    assert fold.apply("ADDED", pod("a", "xyz"))
    assert fold.apply("MODIFIED", pod("a", "abc", value=2))
    assert fold.resource_version == "abc"


def test_what_is_known_stays_while_the_version_is_too_old() -> None:
    fold = Fold()
    fold.replace([pod("a", 1)], "1")
    fold.expire()
    assert (names(fold), fold.resource_version) == ({"a"}, None)


@pytest.mark.parametrize(
    ("kind", "item"),
    [("ADDED", {}), ("ADDED", {"metadata": {"name": ""}}), ("ADDED", {"metadata": 3}), ("?", pod("a", 1))],
)
def test_what_no_server_sends_is_refused(kind: str, item: dict[str, Any]) -> None:
    fold = Fold()
    fold.replace([], "1")
    with pytest.raises(ValueError, match="an event"):
        fold.apply(kind, item)


def test_graves_are_bounded() -> None:
    fold = Fold()
    fold.replace([], "1")
    for version in range(2, MOST_GRAVES + 100):
        fold.apply("DELETED", pod(f"p{version}", version))
    assert len(fold._graves) == MOST_GRAVES


HISTORY = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["write", "delete"])), max_size=40)


@given(HISTORY, st.randoms(use_true_random=False))
def test_repeated_and_reordered_events_end_in_the_same_copy(history: list[tuple[str, str]], rng: random.Random) -> None:
    objects: dict[str, dict[str, Any]] = {}
    events = []
    for version, (name, action) in enumerate(history, 2):
        if action == "write":
            events.append(("MODIFIED" if name in objects else "ADDED", pod(name, version, version)))
            objects[name] = events[-1][1]
        elif name in objects:
            events.append(("DELETED", pod(name, version, version)))
            del objects[name]
    fold = Fold()
    fold.replace([], "1")
    sent = events + rng.choices(events, k=len(events)) if events else []
    rng.shuffle(sent)
    for kind, item in sent:
        fold.apply(kind, item)
    assert {name: item for (_, name), item in fold.objects.items()} == objects
