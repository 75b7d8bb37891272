"""A set of replicas that serve the same requests, and those of them that may be chosen now."""

from __future__ import annotations

from lb.ledger import touch
from lb.replica import Replica, ReplicaState
from lb.routing.order import WorkOrder


class Roster:
    """`ready` is what a decision looks at; it changes only when a replica's state does."""

    __slots__ = ("by_index", "members", "order", "panic", "ready", "ready_mask", "swaps", "turn")

    def __init__(self) -> None:
        self.members: list[Replica] = []
        self.ready: list[Replica] = []
        self.order: WorkOrder | None = None
        """Set where `ready` is longer than the shortlist, as are the two below."""
        self.by_index: dict[int, Replica] = {}
        self.ready_mask = 0
        self.turn = 0
        """Of the round-robin strategy."""
        self.panic = False
        """So few are healthy that health is ignored."""
        self.swaps = False
        """Some member loads models on demand."""

    def refresh(self, panic_ratio: float, shortlist: int) -> None:
        """Recompute `ready` after a member's state changed. O(members)."""
        self.ready = [replica for replica in self.members if replica.selectable]
        present = [one for one in self.members if one.state not in (ReplicaState.DRAINING, ReplicaState.GONE)]
        self.panic = bool(present) and panic_ratio > 0.0 and len(self.ready) < panic_ratio * len(present)
        if self.panic:
            self.ready = present
        self.swaps = any(one.load is not None and one.load.loaded_models is not None for one in self.members)
        if len(self.ready) <= shortlist:
            self.order = None
            return
        self.order = WorkOrder(self.ready)
        self.by_index = {replica.index: replica for replica in self.ready}
        self.ready_mask = sum(1 << index for index in self.by_index)
        for replica in self.ready:
            touch(replica)

    def has_room(self) -> bool:
        return any(
            replica.in_flight < replica.limit and (replica.kv_left > 0.0 or not replica.in_flight)
            for replica in self.ready
        )

    @property
    def cold(self) -> bool:
        """Nobody serves now, and nobody is broken either: to wait is right."""
        states = {replica.state for replica in self.members}
        if states & {ReplicaState.READY, ReplicaState.TRIAL}:
            return False
        return ReplicaState.JOINING in states or not states & {ReplicaState.FAILED, ReplicaState.EJECTED}
