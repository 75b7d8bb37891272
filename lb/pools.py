"""Which replicas serve which model."""

from __future__ import annotations

from collections.abc import Iterable

from lb.ledger import touch
from lb.replica import Replica, ReplicaState
from lb.routing.order import WorkOrder
from lb.signals import ModelSignals

MAX_UNLISTED = 1024
"""Pools for model names that no replica lists (clients choose them while models are not known yet)."""
MAX_KNOWN = 4096
"""Names remembered as once served, which are held and not refused while scaled to zero."""
OVERFLOW = "*"


class Pool:
    """The replicas of one model. `ready` is what a decision looks at; it changes only when a replica does."""

    __slots__ = ("by_index", "key", "members", "order", "panic", "ready", "ready_mask", "signals", "swaps", "turn")

    def __init__(self, key: str, now: float) -> None:
        self.key = key
        self.members: list[Replica] = []
        self.ready: list[Replica] = []
        self.order: WorkOrder | None = None
        """Set where `ready` is longer than the shortlist, as are the two below."""
        self.by_index: dict[int, Replica] = {}
        self.ready_mask = 0
        self.turn = 0
        self.panic = False
        """So few are healthy that health is ignored."""
        self.swaps = False
        """Some member loads models on demand."""
        self.signals = ModelSignals(now)

    def refresh(self, panic_ratio: float, shortlist: int) -> None:
        """Recompute `ready` after a member's state changed."""
        self.ready = [replica for replica in self.members if replica.selectable]
        present = [one for one in self.members if one.state not in (ReplicaState.DRAINING, ReplicaState.GONE)]
        self.panic = bool(present) and panic_ratio > 0.0 and len(self.ready) < panic_ratio * len(present)
        if self.panic:
            self.ready = present
        if len(self.ready) > shortlist:
            self.order = WorkOrder(self.ready)
            self.by_index = {replica.index: replica for replica in self.ready}
            self.ready_mask = sum(1 << index for index in self.by_index)
            for replica in self.ready:
                touch(replica)
        else:
            self.order = None
        self.swaps = any(one.load is not None and one.load.loaded_models is not None for one in self.members)

    def has_room(self) -> bool:
        return any(
            replica.in_flight < replica.limit and (replica.kv_left > 0.0 or not replica.in_flight)
            for replica in self.ready
        )

    @property
    def cold(self) -> bool:
        """Nobody serves the model now, and nobody is broken either: to wait is right."""
        states = {replica.state for replica in self.members}
        if states & {ReplicaState.READY, ReplicaState.TRIAL}:
            return False
        return ReplicaState.JOINING in states or not states & {ReplicaState.FAILED, ReplicaState.EJECTED}


class Pools:
    """Pools by model name; None is the pool of all, for requests that name no model."""

    __slots__ = ("_any_model", "_by_model", "_empty", "_known", "_panic_ratio", "_replicas", "_shortlist")

    def __init__(self, now: float, panic_ratio: float, shortlist: int) -> None:
        self._by_model: dict[str | None, Pool] = {None: Pool("", now)}
        self._known: dict[str, None] = {}
        self._any_model: list[Replica] = []
        """Replicas whose models are not known yet."""
        self._replicas: list[Replica] = []
        self._empty = True
        self._panic_ratio = panic_ratio
        self._shortlist = shortlist

    def configure(self, panic_ratio: float, shortlist: int) -> None:
        self._panic_ratio = panic_ratio
        self._shortlist = shortlist
        for pool in self._by_model.values():
            pool.refresh(panic_ratio, shortlist)

    def all(self) -> list[Pool]:
        return list(self._by_model.values())

    def find(self, model: str | None, now: float) -> Pool | None:
        """The pool of `model`; None: no such model here.

        A name that nobody lists is taken for servable while some replica has not said what it serves, while there is
        no replica at all, and if it was served before.
        """
        pool = self._by_model.get(model)
        if pool is not None:
            return pool
        if model is None or not self._servable(model):
            return None
        if len(self._by_model) >= MAX_UNLISTED + len(self._known):
            if OVERFLOW in self._by_model:
                return self._by_model[OVERFLOW]
            model = OVERFLOW
        pool = self._by_model[model] = Pool(model, now)
        self._fill(pool, model)
        return pool

    def has_room(self, key: str) -> bool:
        """Whether a request of the pool with this key can be sent now."""
        pool = self._by_model.get(key or None)
        return pool is not None and pool.has_room()

    def rebuild(self, replicas: Iterable[Replica], now: float) -> list[Pool]:
        """Replicas or their models have changed. Returns pools that are gone: nobody will ever serve their model."""
        self._replicas = list(replicas)
        current = [one for one in self._replicas if not one.retired]
        self._empty = not current
        self._any_model = [one for one in current if one.models is None]
        for replica in current:
            for model in replica.models or ():
                self._known.pop(model, None)
                self._known[model] = None
                if model not in self._by_model:
                    self._by_model[model] = Pool(model, now)
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        for replica in self._replicas:
            replica.pools = []
        gone: list[Pool] = []
        for name, pool in list(self._by_model.items()):
            if name is not None and not self._servable(name) and not self._listed(name):
                del self._by_model[name]
                gone.append(pool)
            else:
                self._fill(pool, name)
        return gone

    def refresh(self, replica: Replica) -> None:
        """The state of `replica` has changed."""
        for pool in replica.pools:
            pool.refresh(self._panic_ratio, self._shortlist)

    def _servable(self, model: str) -> bool:
        return bool(self._empty or self._any_model or model in self._known)

    def _listed(self, model: str) -> bool:
        return any(one.models is not None and model in one.models for one in self._replicas)

    def _fill(self, pool: Pool, model: str | None) -> None:
        pool.members = [one for one in self._replicas if model is None or one.models is None or model in one.models]
        for replica in pool.members:
            replica.pools.append(pool)
        pool.refresh(self._panic_ratio, self._shortlist)
