"""Policies that cannot be meant are refused with what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from autoscaler.policy.kubernetes import KubernetesSettings
from autoscaler.policy.pools import PoolSettings


def pool(kinds: list[str], workloads: list[dict[str, Any]], **others: Any) -> PoolSettings:
    actuator = {"type": "kubernetes", "workloads": workloads, **others}
    body = {"name": "chat", "kinds": [{"name": name} for name in kinds], "actuator": actuator}
    return PoolSettings.model_validate(body)


def test_each_kind_has_its_workload() -> None:
    made = pool(["h100", "spot"], [{"name": "a", "kind": "h100"}, {"name": "b", "kind": "spot"}])
    assert isinstance(made.actuator, KubernetesSettings)
    assert [one.kind for one in made.actuator.workloads] == ["h100", "spot"]


@pytest.mark.parametrize(
    ("kinds", "workloads", "told"),
    [
        (["h100", "spot"], [{"name": "a", "kind": "h100"}], "nothing runs replicas of kind spot; add"),
        (["h100"], [{"name": "a", "kind": "h100"}, {"name": "b", "kind": "b200"}], "`kinds` has only h100"),
        (["h100"], [{"name": "a", "kind": "h100"}, {"name": "b", "kind": "h100"}], "must be of different kinds"),
        (["h100"], [], "at least 1 item"),
        (["default"], [{"name": "A_b"}], "String should match pattern"),
        (["default"], [{"name": "a", "resource": "../secrets"}], "String should match pattern"),
        (["default"], [{"name": "a", "resource": "a/b/c/d"}], "String should match pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused(kinds: list[str], workloads: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        pool(kinds, workloads)


@pytest.mark.parametrize("namespace", ["../kube-system", "a/b", "A", "-a"])
def test_a_namespace_is_a_name_and_no_path(namespace: str) -> None:
    with pytest.raises(ValidationError, match="namespace"):
        pool(["default"], [{"name": "a"}], namespace=namespace)


def test_a_field_manager_that_others_would_not_recognise_is_refused() -> None:
    with pytest.raises(ValidationError, match="field_manager"):
        pool(["default"], [{"name": "a"}], field_manager="kubectl")
