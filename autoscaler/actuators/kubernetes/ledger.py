"""What was asked of one workload and has not all happened: names of starts, pods that drain, pods told to end. Pure.

A number knows no names. A start's name is given to the next pod that appears and is written on it; until then it counts
as one that is still to come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from autoscaler.actuators.kubernetes import objects
from autoscaler.actuators.kubernetes.objects import Object
from autoscaler.actuators.kubernetes.pods import START_ID, is_active, is_ready
from autoscaler.actuators.kubernetes.removal import LOWEST_COST, cost


class Ledger:
    """Of one workload."""

    def __init__(self) -> None:
        self.pending: list[str] = []
        """Starts that are no pod yet, in the order in which they were asked for."""
        self.names: dict[str, str] = {}
        """Names of pods (by uid) that got one from us."""
        self.draining: dict[str, str] = {}
        """Pods (uids) that get no new requests, and why."""
        self.stopped: set[str] = set()
        """Pods (uids) that nothing runs on and that were told to end."""
        self.given_up: set[str] = set()
        """Pods (uids) that were told to end while they started. One that becomes ready nevertheless is let go again: it
        may have requests by then."""
        self.nameless = 0
        """Pods that were still to come when this process first looked, and whose names it does not know."""
        self._known: set[str] | None = None
        """Pods that were there before; only a new one can be a start's. None: none was seen yet."""

    @property
    def ending(self) -> set[str]:
        """All that were told to end."""
        return self.stopped | self.given_up

    def spare(self, uid: str) -> None:
        """It is not to end after all."""
        self.stopped.discard(uid)
        self.given_up.discard(uid)

    def knows(self, start_id: str) -> bool:
        """Whether this start was asked for here."""
        return start_id in self.pending or start_id in self.names.values()

    def ask(self, start_ids: Iterable[str]) -> None:
        """Starts that are to come, unless they came already."""
        there = {*self.names.values(), *self.pending}
        self.pending += [one for one in dict.fromkeys(start_ids) if one not in there]

    def withdraw(self, start_id: str) -> None:
        """A start that is no longer wanted, if it is no pod yet."""
        if start_id in self.pending:
            self.pending.remove(start_id)

    def saw(self, pods: Sequence[Object], replicas: int) -> None:
        """Give names to pods that are new, the oldest name to the oldest pod, and forget what is gone. `replicas`: the
        number that was written."""
        present = {objects.uid(pod) for pod in pods}
        for pod in pods:
            noted = objects.notes(pod).get(START_ID)
            if noted:
                self.names[objects.uid(pod)] = noted
                self.withdraw(noted)
        coming = max(0, replicas - sum(map(is_active, pods)))
        if self._known is None:
            self.nameless = coming
        else:
            known = self._known
            new = [
                pod
                for pod in pods
                if is_active(pod) and objects.uid(pod) not in known and objects.uid(pod) not in self.names
            ]
            new.sort(key=lambda pod: (objects.text(pod, "metadata", "creationTimestamp"), objects.name(pod)))
            for pod in new:
                if self.nameless:
                    self.nameless -= 1  # the oldest ones asked for come first
                elif self.pending:
                    self.names[objects.uid(pod)] = self.pending.pop(0)
        self.nameless = min(self.nameless, coming)
        self._known = present
        self.names = {uid: name for uid, name in self.names.items() if uid in present}
        self.draining = {uid: why for uid, why in self.draining.items() if uid in present}
        self.stopped &= present
        self.given_up &= present
        if sum(map(is_active, pods)) > replicas:
            # Pods are still to go. To take a mark back now would only make it another one that goes, also if it was
            # an earlier process that put it there.
            self.given_up |= {objects.uid(pod) for pod in pods if cost(pod) == LOWEST_COST} - self.stopped
        else:
            self.given_up -= {objects.uid(pod) for pod in pods if is_ready(pod)}

    def unseen(self, pods: Iterable[Object], total: int | None, failed: Collection[str]) -> int:
        """Starts that are no pod yet. `total`: the replicas that should exist besides those that drain, end or have
        failed (uids), if they are all of this workload."""
        if total is None:
            return len(self.pending) + self.nameless
        out = {*self.draining, *self.ending, *failed}
        there = sum(is_active(pod) and objects.uid(pod) not in out for pod in pods)
        return max(len(self.pending), total - there)
