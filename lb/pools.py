"""Which replicas serve which model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lb.replica import Replica
from lb.roster import Roster
from lb.signals import ModelSignals, Objective

MAX_UNLISTED = 1024
"""Pools for model names that no replica lists (clients choose them while models are not known yet)."""
MAX_KNOWN = 4096
"""Names remembered as once served, which are held and not refused while scaled to zero."""
OVERFLOW = "*"
"""The pool of all unlisted names beyond `MAX_UNLISTED`."""


class Pool:
    """One model: who serves it and what is asked of it. Names that no replica lists share a roster."""

    __slots__ = ("key", "roster", "signals")

    def __init__(self, key: str, roster: Roster, now: float, objective: Objective | None = None) -> None:
        self.key = key
        self.roster = roster
        self.signals = ModelSignals(now)
        self.signals.expect(objective, now)


class Pools:
    """Pools by model name. The name None, of requests that name no model, has a pool of all replicas."""

    __slots__ = (
        "_all", "_any_model", "_by_model", "_empty", "_known", "_listed", "_objective", "_objectives", "_panic_ratio",
        "_replicas", "_shortlist",
    )  # fmt: skip

    def __init__(self, now: float, panic_ratio: float, shortlist: int) -> None:
        self._by_model: dict[str | None, Pool] = {}
        self._listed: dict[str, Roster] = {}
        """Rosters of models that replicas list."""
        self._any_model = Roster()
        """Replicas whose models are not known yet: they are asked for anything."""
        self._all: Roster | None = None
        """All replicas; made when the first request without a model comes."""
        self._known: dict[str, None] = {}
        self._replicas: list[Replica] = []
        self._empty = True
        self._panic_ratio = panic_ratio
        self._shortlist = shortlist
        self._objectives: Mapping[str, Objective] = {}
        self._objective: Objective | None = None

    def expect(self, objectives: Mapping[str, Objective], otherwise: Objective | None, now: float) -> None:
        """What requests may expect, by model; `otherwise` of models that are not named, None: no matter."""
        self._objectives = objectives
        self._objective = otherwise
        for pool in self._by_model.values():
            pool.signals.expect(objectives.get(pool.key, otherwise), now)

    def _make(self, key: str, roster: Roster, now: float) -> Pool:
        return Pool(key, roster, now, self._objectives.get(key, self._objective))

    def configure(self, panic_ratio: float, shortlist: int) -> None:
        self._panic_ratio = panic_ratio
        self._shortlist = shortlist
        for roster in self._rosters():
            roster.refresh(panic_ratio, shortlist)

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
        if model is None:
            self._all = Roster()
            pool = self._by_model[None] = self._make("", self._all, now)
            self._fill()
            return pool
        if not self._servable(model):
            return None
        if len(self._by_model) >= MAX_UNLISTED + len(self._known):
            if OVERFLOW in self._by_model:
                return self._by_model[OVERFLOW]
            model = OVERFLOW
        pool = self._by_model[model] = self._make(model, self._any_model, now)
        return pool

    def has_room(self, key: str) -> bool:
        """Whether a request of the pool with this key can be sent now."""
        pool = self._by_model.get(key or None)
        return pool is not None and pool.roster.has_room()

    def rebuild(self, replicas: Iterable[Replica], now: float) -> list[Pool]:
        """Replicas or their models have changed. Returns pools that are gone: nobody will ever serve their model."""
        self._replicas = list(replicas)
        current = [one for one in self._replicas if not one.retired]
        self._empty = not current
        for replica in current:
            for model in replica.models or ():
                self._known.pop(model, None)
                self._known[model] = None
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        names = {model for one in self._replicas for model in one.models or ()}
        self._listed = {name: self._listed.get(name) or Roster() for name in names}
        self._fill()
        gone: list[Pool] = []
        for name in names - self._by_model.keys():
            self._by_model[name] = self._make(name, self._listed[name], now)
        for name_, pool in list(self._by_model.items()):
            if name_ is None:
                continue
            if name_ not in names and not self._servable(name_):
                del self._by_model[name_]
                gone.append(pool)
            else:
                pool.roster = self._listed.get(name_, self._any_model)
        return gone

    def refresh(self, replica: Replica) -> None:
        """The state of `replica` has changed."""
        for roster in replica.rosters:
            roster.refresh(self._panic_ratio, self._shortlist)

    def _servable(self, model: str) -> bool:
        return self._empty or bool(self._any_model.members) or model in self._known

    def _rosters(self) -> list[Roster]:
        return [self._any_model, *self._listed.values(), *([self._all] if self._all is not None else [])]

    def _fill(self) -> None:
        """Give every roster its members, and every replica its rosters."""
        for roster in self._rosters():
            roster.members = []
        for replica in self._replicas:
            replica.rosters = []
            if replica.models is None:
                # Also where a model is listed by others: it may serve that one, too.
                replica.rosters = [*self._listed.values()]
                if not replica.retired:
                    replica.rosters.append(self._any_model)
            else:
                replica.rosters = [self._listed[model] for model in replica.models]
                if replica.any_model and not replica.retired:
                    replica.rosters.append(self._any_model)  # for names that nobody lists
            if self._all is not None:
                replica.rosters.append(self._all)
            for roster in replica.rosters:
                roster.members.append(replica)
        for roster in self._rosters():
            roster.refresh(self._panic_ratio, self._shortlist)
