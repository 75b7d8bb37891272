"""The controller without I/O: what is observed and time go in; decisions and actions come out. It owns all memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoscaler.action import Action
from autoscaler.decide.budget import Spent
from autoscaler.decide.decision import Decision, sentence
from autoscaler.decide.observation import PoolDemand
from autoscaler.decide.outlook import Outlook
from autoscaler.decide.pool import Pool
from autoscaler.fleet import Fleet, Phase
from autoscaler.policy.pools import PoolSettings, ScalingSettings

_NO_FORECAST: Mapping[str, Outlook] = {}


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick came to."""

    decisions: tuple[Decision, ...]
    actions: tuple[Action, ...]
    """In the order in which they should be carried out."""
    sentence: str
    """For the log: one sentence per pool that changes or has a fault, or that nothing changes."""


class Controller:
    """All pools. One caller, `now` (monotonic seconds) never goes back; `wall` (epoch seconds) is for schedules only.

    `epoch` is part of the names of starts; a process uses one that no earlier one used.
    """

    def __init__(self, settings: ScalingSettings, *, epoch: str = "") -> None:
        self.settings = settings
        self._epoch = epoch
        self._pools = {pool.name: Pool(pool, epoch) for pool in settings.pools}

    def pool(self, name: str) -> Pool:
        """What is known and remembered of one pool, to be read."""
        return self._pools[name]

    def tick(
        self,
        fleet: Fleet,
        demand: Mapping[str, PoolDemand],
        forecast: Mapping[str, Outlook] = _NO_FORECAST,
        *,
        now: float,
        wall: float | None = None,
    ) -> Tick:
        """Decide for every pool; the most urgent pools spend shared budgets first."""
        spent = self._spent(fleet)
        decisions: dict[str, Decision] = {}
        actions: list[Action] = []
        for name, pool in sorted(self._pools.items(), key=lambda item: (item[1].settings.priority, item[0])):
            decision, asked = pool.tick(
                fleet.get(name), demand.get(name), forecast.get(name), now, wall, self.settings.budget, spent
            )
            decisions[name] = decision
            actions += asked
        ordered = tuple(decisions[name] for name in self._pools)
        return Tick(ordered, tuple(actions), _say(ordered))

    def _spent(self, fleet: Fleet) -> Spent:
        spent = Spent()
        for name, pool in self._pools.items():
            kinds = {kind.name: kind for kind in pool.settings.kinds}
            seen = fleet.get(name)
            for replica in seen.replicas if seen is not None else ():
                # A failed replica holds its GPU until it is stopped.
                if replica.kind in kinds and replica.phase in Phase:
                    spent.add(kinds[replica.kind])
            for start in pool.starts.unseen():
                spent.add(kinds[start.kind])
        return spent

    def recall(
        self, name: str, rates: Iterable[tuple[float, float]], forecasts: Mapping[float, Outlook], now: float
    ) -> None:
        """Learn from demand before the start of the process: (monotonic instant, units a second) in order, and what
        was forecast at which of these instants."""
        self._pools[name].recall(list(rates), forecasts, now)

    def reconfigure(self, settings: ScalingSettings) -> None:
        """New settings; what was learned of pools that stay is kept."""
        pools: dict[str, Pool] = {}
        for pool in settings.pools:
            pools[pool.name] = self._renewed(pool)
        self.settings = settings
        self._pools = pools

    def _renewed(self, settings: PoolSettings) -> Pool:
        old = self._pools.get(settings.name)
        if old is not None and old.settings == settings:
            return old
        new = Pool(settings, self._epoch)
        if old is not None:
            new.restore(old.state())
        return new

    def state(self) -> dict[str, object]:
        """What a restart must not forget; JSON."""
        return {name: pool.state() for name, pool in self._pools.items()}

    def restore(self, state: Mapping[str, object]) -> None:
        """The reverse; pools that no longer exist are left out, as is whatever makes no sense."""
        for name, pool in self._pools.items():
            part = state.get(name)
            if isinstance(part, Mapping):
                pool.restore(part)


def _say(decisions: tuple[Decision, ...]) -> str:
    told = [sentence(one) for one in decisions if one.change or one.fault]
    if told:
        return ". ".join(told)
    return sentence(decisions[0]) if len(decisions) == 1 else f"{len(decisions)} pools: no change"
