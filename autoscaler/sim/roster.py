"""Who is there in the plant: starting, ready, draining, gone; and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from autoscaler.sim.start_up import Scenario


@dataclass(slots=True, eq=False)
class SimReplica:
    """One replica from its request to its end."""

    ordinal: int
    asked_at: float
    ready_at: float
    start_id: str | None = None
    phase: str = "starting"
    """starting, ready, draining, gone"""
    since: float = 0.0
    in_flight: float = 0.0
    """Set by the engine when somebody looks, and while it drains."""
    load: object = None
    """The engine's own."""


@dataclass(slots=True)
class Roster:
    """All replicas that exist. The engine hooks into what becomes ready, what drains and what comes back."""

    scenario: Scenario
    seed: int
    max_replicas: int
    on_ready: Callable[[SimReplica, float], None]
    on_drain: Callable[[SimReplica, float], None]
    on_return: Callable[[SimReplica, float], None]
    alive: dict[int, SimReplica] = field(default_factory=dict)
    ready: list[SimReplica] = field(default_factory=list)
    starting: dict[int, SimReplica] = field(default_factory=dict)
    draining: dict[int, SimReplica] = field(default_factory=dict)
    billed_s: float = 0.0
    """Replica-seconds of those that are gone."""
    actions: int = 0
    """Changes of the wanted number."""
    reversals: int = 0
    wasted: int = 0
    """Replicas that were removed before they were ready for as long as they took to start."""
    killed: int = 0
    """Requests that were running on a replica that was ended."""
    scored_from: float = 0.0
    _count: int = 0
    _due: list[tuple[float, int]] = field(default_factory=list)
    _last_up: float = -1e18
    _last_down: float = -1e18
    schedule: list[tuple[float, int]] = field(default_factory=list)
    """(second, wanted replicas) at each change."""

    @property
    def count(self) -> int:
        """Ordinal of the next replica."""
        return self._count

    @property
    def wanted(self) -> int:
        return len(self.ready) + len(self.starting)

    def place(self, count: int, now: float) -> None:
        """Replicas that are ready from the beginning."""
        for _ in range(count):
            replica = self._new(now, now, None)
            self._become_ready(replica, now)
        self.schedule.append((now, self.wanted))

    def start(self, now: float, start_id: str | None = None) -> SimReplica:
        replica = self._new(now, now + self.scenario.draw(self.seed, self._count), start_id)
        self.starting[replica.ordinal] = replica
        heappush(self._due, (replica.ready_at, replica.ordinal))
        return replica

    def scale_to(self, wanted: int, now: float) -> None:
        """What an actuator that knows only a number does: start what lacks, remove the youngest first of those that
        are not ready, then those that have least to do."""
        before = self.wanted
        wanted = max(0, min(wanted, self.max_replicas))
        for _ in range(wanted - before):
            self.start(now)
        for _ in range(before - wanted):
            if self.starting:
                self.cancel(next(reversed(self.starting.values())), now)
            else:
                self.drain(min(self.ready, key=lambda one: one.in_flight), now)
        self.note(before, now)

    def note(self, before: int, now: float) -> None:
        """Count a change of the wanted number."""
        wanted = self.wanted
        if wanted == before:
            return
        self.schedule.append((now, wanted))
        if now < self.scored_from:
            return
        self.actions += 1
        window_s = 2.0 * self.scenario.p50_s
        if wanted > before:
            self.reversals += now - self._last_down <= window_s
            self._last_up = now
        else:
            self.reversals += now - self._last_up <= window_s
            self._last_down = now

    def cancel(self, replica: SimReplica, now: float) -> None:
        """End a start."""
        del self.starting[replica.ordinal]
        self.wasted += now >= self.scored_from
        self._end(replica, now)

    def drain(self, replica: SimReplica, now: float) -> None:
        self.ready.remove(replica)
        self.draining[replica.ordinal] = replica
        if now - replica.ready_at < replica.ready_at - replica.asked_at:
            self.wasted += now >= self.scored_from
        replica.phase, replica.since = "draining", now
        self.on_drain(replica, now)

    def take_back(self, replica: SimReplica, now: float) -> None:
        del self.draining[replica.ordinal]
        replica.phase, replica.since = "ready", now
        self.ready.append(replica)
        self.on_return(replica, now)

    def gone(self, replica: SimReplica, now: float) -> None:
        """A drained replica ends."""
        del self.draining[replica.ordinal]
        self._end(replica, now)

    def due_at(self) -> float:
        """When the next start is ready."""
        return self._due[0][0] if self._due else float("inf")

    def advance(self, now: float) -> None:
        """Starts that are over become ready."""
        while self._due and self._due[0][0] <= now:
            at, ordinal = heappop(self._due)
            replica = self.starting.pop(ordinal, None)
            if replica is not None:
                self._become_ready(replica, at)

    def billed_until(self, now: float) -> float:
        """Replica-seconds so far within what is scored."""
        alive = sum(max(0.0, now - max(one.asked_at, self.scored_from)) for one in self.alive.values())
        return self.billed_s + alive

    def _new(self, asked_at: float, ready_at: float, start_id: str | None) -> SimReplica:
        replica = SimReplica(self._count, asked_at, ready_at, start_id, since=asked_at)
        self._count += 1
        self.alive[replica.ordinal] = replica
        return replica

    def _become_ready(self, replica: SimReplica, at: float) -> None:
        replica.phase, replica.since = "ready", at
        self.ready.append(replica)
        self.on_ready(replica, at)

    def _end(self, replica: SimReplica, now: float) -> None:
        replica.phase, replica.since = "gone", now
        del self.alive[replica.ordinal]
        self.billed_s += max(0.0, now - max(replica.asked_at, self.scored_from))
