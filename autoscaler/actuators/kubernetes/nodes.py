"""Nodes that are there before their pods: the contract of what provides them, and what is known of nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from autoscaler.actuator import Observation
from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.pods import gpus_of, is_active
from autoscaler.fleet import Phase

DAEMON_OWNERS = frozenset({"DaemonSet", "Node"})
"""Pods of these come with the node and go with it (`Node` owns mirror pods)."""


class NodePool(Protocol):
    """Called by the pool's actuator, by the leader and in mode own only. Raises ActuatorError."""

    async def ahead_of(self, replicas: int) -> None:
        """So many replicas are about to be wanted, pods or not: if that takes more nodes, ask for them first."""
        ...

    async def settle(self, seen: Observation) -> None:
        """Bring the nodes to what the replicas need now; one step a tick."""
        ...


class Use(StrEnum):
    """What a node is used for."""

    BUSY = "busy"
    """By replicas, or by others that take GPUs."""
    SHARED = "shared"
    """Only by pods that can run elsewhere."""
    EMPTY = "empty"


def use_of(pods: Iterable[Object], resource: str) -> Use:
    """What the pods on a node make it. Those that come with every node do not count."""
    found = Use.EMPTY
    for pod in pods:
        if not is_active(pod) and objects.text(pod, "status", "phase") in ("Failed", "Succeeded"):
            continue
        if any(owner.get("kind") in DAEMON_OWNERS for owner in objects.items(pod, "metadata", "ownerReferences")):
            continue
        if gpus_of(pod, resource):
            return Use.BUSY
        found = Use.SHARED
    return found


def needed_nodes(replicas: int, per_node: int, headroom: int, most: int) -> int:
    """Nodes for so many replicas, and some in hand."""
    return min(most, -(-replicas // per_node) + headroom)


def alive(seen: Observation) -> int:
    """Replicas that need a place, those that drain or wait for their end included: they still hold theirs."""
    return sum(one.fact.phase is not Phase.FAILED for one in seen.replicas)


@dataclass(frozen=True, slots=True)
class GroupNode:
    """One node of a group."""

    name: str
    """Empty: it has none yet."""
    member: str
    """The Machine's name, or the node's."""
    cordoned: bool
    """By us."""
    use: Use


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with a group of nodes in this tick."""

    size: int | None = None
    """Write this number; None: leave it."""
    release: tuple[GroupNode, ...] = ()
    """Nodes that go with it."""
    cordon: tuple[str, ...] = ()
    uncordon: tuple[str, ...] = ()
    evict_on: tuple[str, ...] = ()
    """Nodes whose remaining pods are asked to go elsewhere."""


def plan(size: int, needed: int, nodes: Iterable[GroupNode]) -> Step:
    """Raise at once. Lower in three ticks: cordon what nothing runs on, ask the rest away, release what was cordoned
    before and still is empty. A node with replicas on it is never touched."""
    group = list(nodes)
    if needed > size:
        return Step(size=needed, uncordon=tuple(one.name for one in group if one.cordoned))
    surplus = size - needed
    if surplus == 0:
        return Step(uncordon=tuple(one.name for one in group if one.cordoned))
    nameless = [one for one in group if not one.name]
    idle = [one for one in group if one.name and one.use is not Use.BUSY]
    # Those that we hold already, then the empty ones.
    idle.sort(key=lambda one: (not one.cordoned, one.use is not Use.EMPTY, one.name))
    chosen = (nameless + idle)[:surplus]
    release = tuple(one for one in chosen if not one.name or (one.cordoned and one.use is Use.EMPTY))
    return Step(
        size=size - len(release) if release else None,
        release=release,
        cordon=tuple(one.name for one in chosen if one.name and not one.cordoned),
        uncordon=tuple(one.name for one in group if one.cordoned and one not in chosen),
        evict_on=tuple(one.name for one in chosen if one.cordoned and one.use is Use.SHARED),
    )
