"""Nodes that go and placeholders that hold room, and what is told of it. All as values."""

from __future__ import annotations

import pytest

from autoscaler.actuators.kubernetes import nodes
from autoscaler.actuators.kubernetes.headroom import placeholder, room_of
from autoscaler.actuators.kubernetes.nodes import GroupNode, Step, Use
from autoscaler.actuators.kubernetes.report import SPACING_S, Deduplicated
from autoscaler.policy.kubernetes import PlaceholderNodes
from tests.autoscaler.actuators.kubernetes_objects import at, pod


def member(name: str, use: Use, cordoned: bool = False) -> GroupNode:
    return GroupNode(name, name or "machine", cordoned, use)


EMPTY, SHARED, BUSY = member("e", Use.EMPTY), member("s", Use.SHARED), member("b", Use.BUSY)
HELD = member("h", Use.EMPTY, True)


@pytest.mark.parametrize(
    ("size", "needed", "group", "step"),
    [
        (1, 3, [BUSY], Step(size=3)),
        (1, 3, [HELD], Step(size=3, uncordon=("h",))),
        (2, 2, [BUSY, HELD], Step(uncordon=("h",))),
        (2, 1, [BUSY, EMPTY], Step(cordon=("e",))),
        (2, 1, [BUSY, HELD], Step(size=1, release=(HELD,))),
        (2, 1, [BUSY, member("s", Use.SHARED, True)], Step(evict_on=("s",))),
        (3, 2, [BUSY, EMPTY, HELD], Step(size=2, release=(HELD,))),
        (2, 0, [BUSY, BUSY], Step()),
        (2, 1, [BUSY, member("", Use.EMPTY)], Step(size=1, release=(member("", Use.EMPTY),))),
        (3, 2, [BUSY, SHARED, EMPTY], Step(cordon=("e",))),
    ],
)
def test_nodes_go_in_three_steps_and_never_with_replicas_on_them(
    size: int, needed: int, group: list[GroupNode], step: Step
) -> None:
    assert nodes.plan(size, needed, group) == step


def test_what_uses_a_node() -> None:
    daemon = {**pod(), "metadata": {"name": "d", "ownerReferences": [{"kind": "DaemonSet"}]}}
    guest = pod(gpus="0")
    assert nodes.use_of([daemon], "nvidia.com/gpu") is Use.EMPTY
    assert nodes.use_of([daemon, guest], "nvidia.com/gpu") is Use.SHARED
    assert nodes.use_of([guest, pod()], "nvidia.com/gpu") is Use.BUSY
    leaving = pod()
    leaving["metadata"]["deletionTimestamp"] = at(5)
    assert nodes.use_of([leaving], "nvidia.com/gpu") is Use.BUSY, "it still ends its work"
    assert nodes.needed_nodes(5, 2, 1, 10) == 4
    assert nodes.needed_nodes(50, 2, 1, 10) == 10


def test_a_placeholder_has_the_size_of_a_replica_and_goes_where_it_goes() -> None:
    template = {
        "spec": {
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "serviceAccountName": "runtime",
            "volumes": [{"name": "weights"}],
            "containers": [
                {"name": "a", "resources": {"limits": {"nvidia.com/gpu": "4"}, "requests": {"memory": "80Gi"}}},
                {"name": "b", "resources": {"limits": {"nvidia.com/gpu": "4"}, "requests": {"memory": "1Gi"}}},
            ],
        }
    }
    assert room_of(template) == {"limits": {"nvidia.com/gpu": "8"}, "requests": {"memory": str(81 << 30)}}
    made = placeholder(template, PlaceholderNodes(type="placeholder", deployment="ahead"), "n", 2, "chat")
    spec = made["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert not {"volumes", "serviceAccountName"} & spec.keys()
    assert spec["terminationGracePeriodSeconds"] == 0


# ---------------------------------------------------------------------- events


def test_events_are_written_once_counted_and_written_anew_when_the_api_server_has_forgotten_them() -> None:
    known = Deduplicated()
    assert known.happened("u", "ScaledUp", "m", "n1", "t", 0.0)[1] == "create"
    assert known.happened("u", "ScaledUp", "m", "n2", "t", 1.0)[1] == ""
    told, todo = known.happened("u", "ScaledUp", "m", "n3", "t", SPACING_S)
    assert (told.name, told.count, todo) == ("n1", 3, "update")
    assert known.happened("u", "ScaledDown", "m", "n4", "t", SPACING_S)[1] == "create"
    assert known.happened("u", "ScaledUp", "m", "n5", "t", 4000.0)[1] == "create"
