"""The transition table as a whole."""

from __future__ import annotations

import pytest

from lb.health.lifecycle import TRANSITIONS, LifeEvent, next_state
from lb.replica import ReplicaState as S


def test_every_state_but_gone_can_be_left_and_reached() -> None:
    sources = {before for before, _ in TRANSITIONS}
    targets = set(TRANSITIONS.values())
    assert sources == set(S) - {S.GONE}
    assert targets == set(S)


def test_every_event_matters_somewhere() -> None:
    assert {event for _, event in TRANSITIONS} == set(LifeEvent)


def test_anything_alive_can_be_drained_and_nothing_leaves_gone() -> None:
    for state in set(S) - {S.DRAINING, S.GONE}:
        assert next_state(state, LifeEvent.DRAIN) is S.DRAINING
    assert all(next_state(S.GONE, event) is None for event in LifeEvent)


def test_a_draining_replica_hears_only_of_its_drain() -> None:
    heard = {event for event in LifeEvent if next_state(S.DRAINING, event) is not None}
    assert heard == {LifeEvent.UNDRAIN, LifeEvent.EMPTY}


@pytest.mark.parametrize("event", [LifeEvent.UP, LifeEvent.UP_EARLY])
def test_a_good_probe_does_not_end_an_ejection(event: LifeEvent) -> None:
    assert next_state(S.EJECTED, event) is None
    assert next_state(S.TRIAL, event) is None
