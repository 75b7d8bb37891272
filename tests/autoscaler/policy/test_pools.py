"""What must hold between pools, and what a store says of itself."""

from __future__ import annotations

import pytest

from autoscaler.policy.load import parse
from lb.yaml_document import DocumentError


def refused(text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        parse(text)
    (problem,) = caught.value.problems
    return problem.text("p.yaml")


def test_a_model_counts_to_one_pool() -> None:
    text = """
scaling:
  pools:
    - name: a
      models: [x, y]
    - name: b
      models: [y]
"""
    said = refused(text)
    assert said.startswith("p.yaml:7: scaling.pools[1].models: 'y' is a model of pool 'a' already")
    assert "line 5" in said


def test_one_pool_at_most_takes_the_rest() -> None:
    said = refused("scaling:\n  pools:\n    - {name: a}\n    - {name: b}\n")
    assert "pool 'a' names no models, too" in said
    policy = parse("scaling:\n  pools:\n    - {name: a}\n    - {name: b, models: [m]}\n")
    assert [pool.models for pool in policy.scaling.pools] == [(), ("m",)]


def test_how_long_things_are_kept_is_written_with_units() -> None:
    store = parse("store: {directory: state, history: 24h, decisions: 48h, ordinary: 1h}").store
    assert (store.directory, store.history_s, store.decisions_s, store.ordinary_s) == ("state", 86_400, 172_800, 3600)
    assert "store.history" in refused("store: {history: 1h}")
