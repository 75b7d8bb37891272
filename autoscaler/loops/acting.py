"""Carries out what the controller asks for: the balancer first, then the actuator.

Between the observation and the act time has passed, so that whoever might be cut is looked at once more: nothing is
ended that a balancer, here or elsewhere, still sends requests to, or that still has some.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf

from autoscaler.action import Action, Drain, GiveUp, Stop, Undrain
from autoscaler.fleet import Phase, PoolFleet
from autoscaler.loops.balancers import Balancers
from autoscaler.loops.hands import Applied, Hands, name_of
from autoscaler.loops.joined import SERVING, in_flight
from autoscaler.policy.pools import PoolSettings
from lb.gateway import Gateway
from lb.summary import replica_view
from lb.views import ReplicaView

log = logging.getLogger(__name__)


class Acting:
    """For all pools. `leads`: whether this process may act at this instant. `balancers`: those elsewhere."""

    def __init__(self, gateway: Gateway, leads: Callable[[], bool], balancers: Balancers | None = None) -> None:
        self._gateway = gateway
        self._leads = leads
        self._balancers = balancers

    async def carry_out(
        self, pool: PoolSettings, hands: Hands, actions: Sequence[Action], open_starts: Sequence[str], fleet: PoolFleet
    ) -> list[Applied]:
        """In order. After one that got no answer in time the rest waits for the next tick."""
        done: list[Applied] = []
        wanted = hands.wanted(actions, open_starts)
        for index, action in enumerate(wanted):
            if not self._leads():
                log.warning("pool %s: another controller leads; nothing more is done", pool.name)
                break
            why_not = self._at_balancer(pool, action, fleet)
            if why_not:
                done.append(Applied(action, why_not))
                continue
            applied = await hands.apply(action)
            done.append(applied)
            if applied.error:
                if isinstance(action, GiveUp) and action.replica is not None:
                    # Nobody asks for it again: it goes on starting, and then it may as well serve.
                    self._gateway.undrain(action.replica)
                log.warning(
                    "pool %s: %s failed", pool.name, name_of(action),
                    extra={"reason": applied.error, "wanted": action.reason},
                )  # fmt: skip
                if hands.stuck:
                    for later in wanted[index + 1 :]:
                        hands.put_off(later)
                    break
        return done

    def _at_balancer(self, pool: PoolSettings, action: Action, fleet: PoolFleet) -> str:
        """The balancer's part of an action. Returns why it must not be done now, or nothing."""
        gateway = self._gateway
        if pool.actuator.type == "dry_run":
            # Nobody would ever end what were drained here, nor take it back.
            return ""
        match action:
            case Drain(replica=replica, deadline_s=deadline_s):
                gateway.drain(replica, deadline_s if pool.down.on_deadline == "stop" else inf)
            case Undrain(replica=replica):
                gateway.undrain(replica)
            case Stop(replica=replica):
                return self._before_stop(pool, replica, fleet)
            case GiveUp(replica=replica):
                view = self._view(replica)
                if view is not None:
                    if view.state in SERVING or in_flight(view):
                        return "it has become ready"
                    gateway.drain(view.id, inf)
            case _:
                pass
        return ""

    def _before_stop(self, pool: PoolSettings, replica: str, fleet: PoolFleet) -> str:
        fact = next((one for one in fleet.replicas if one.id == replica), None)
        view = self._view(replica)
        if fact is None or fact.phase is Phase.FAILED:
            return ""
        if view is not None and view.state in SERVING:
            return "it was taken back and serves"
        if view is not None and in_flight(view) and pool.down.on_deadline != "stop":
            return f"{in_flight(view)} requests still run on it"
        return "" if self._balancers is None else self._balancers.keeps(replica, self._gateway.now())

    def release(self, replicas: Sequence[str]) -> None:
        """Replicas that nobody is going to stop any more serve again."""
        for replica in replicas:
            self._gateway.undrain(replica)

    def _view(self, replica_id: str | None) -> ReplicaView | None:
        replica = self._gateway.balancer.replicas.get(replica_id or "")
        if replica is None:
            return None
        now = self._gateway.now()
        view = replica_view(replica, 0, now)
        return view if self._balancers is None else self._balancers.seen(view, now)
