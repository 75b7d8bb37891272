"""The exact engine: the real balancer, every request, replicas that skip from event to event."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf

import numpy as np

from autoscaler.sim.policy import Policy, Reading
from autoscaler.sim.replica import EventKind, Replica, SimRequest
from autoscaler.sim.replica_model import ReplicaModel
from autoscaler.sim.roster import Roster, SimReplica
from autoscaler.sim.score import UNSCORED_S, WINDOW_S, Score, Tally
from autoscaler.sim.start_up import Scenario
from autoscaler.sim.workload import Lengths, Load
from lb.balancer import Balancer
from lb.effects import Effects, Outcome, Rejected, Routed, Ticket
from lb.endpoint import Endpoint
from lb.request import RequestInfo, SurfaceName
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import AdmissionSettings, HealthSettings, LbSettings, RoutingSettings

_MODEL = "model"
_READY = ProbeResult(ProbeStatus.READY)
_NEVER_S = 86_400.0
_WINDOW_S = 60
_DRAIN_S = 600.0


def plant_settings(strategy: str = "least-requests", wait_s: float = 10.0) -> LbSettings:
    """The balancer of the plant: least outstanding, one central queue, nothing queued at replicas."""
    return LbSettings(
        routing=RoutingSettings.model_validate({"strategy": strategy, "prefix_affinity": False}),
        admission=AdmissionSettings(queue_wait_s=wait_s, cold_wait_s=wait_s, queue_depth=0, queue_requests=1_000_000),
        # The plant has no silent replicas; no token for a while is a long prompt of somebody else.
        health=HealthSettings(progress_min_s=_NEVER_S, warmup_s=0.0, drain_s=_DRAIN_S),
    )


class _Job:
    """One request in the plant; the owner of its ticket."""

    __slots__ = ("arrived", "first", "late", "output", "prompt", "ticket")

    def __init__(self, arrived: float, prompt: int, output: int) -> None:
        self.arrived = arrived
        self.prompt = prompt
        self.output = output
        self.first = 0.0
        self.late = False
        self.ticket: Ticket | None = None


class _Machine:
    """A replica in the plant, and when it has to be looked at next."""

    __slots__ = ("due", "ordinal", "replica")

    def __init__(self, ordinal: int, model: ReplicaModel) -> None:
        self.ordinal = ordinal
        self.replica = Replica(model)
        self.due = inf


class ExactEngine:
    """One run."""

    def __init__(
        self,
        load: Load,
        lengths: Lengths,
        policy: Policy,
        model: ReplicaModel,
        scenario: Scenario,
        *,
        seed: int,
        max_replicas: int,
        first_token_s: float = 2.0,
        inter_token_s: float = 0.1,
        settings: LbSettings | None = None,
        window_s: int = WINDOW_S,
        requests: Sequence[tuple[float, int, int]] | None = None,
    ) -> None:
        """`requests`: (instant, prompt tokens, output tokens) in order, to be played instead of drawn ones; the load
        then only says for how long."""
        self._load, self._lengths, self._policy, self._model = load, lengths, policy, model
        self._first_token_s, self._inter_token_s = first_token_s, inter_token_s
        self.roster = Roster(
            scenario, seed, max_replicas, self._joined, self._left, self._returned, scored_from=UNSCORED_S
        )
        self.balancer = Balancer(settings or plant_settings(), rng=random.Random(seed), now=0.0)
        self._rng = np.random.default_rng(seed + 99_999)
        self.tally = Tally(window_s)
        self._given = None if requests is None else deque(requests)
        self._machines: dict[str, _Machine] = {}
        self._due: list[tuple[float, int, _Machine]] = []
        self._endpoints: dict[str, Endpoint] = {}
        self._sequence = 0
        self._offered = self._missed = self._served = 0
        self._ring = [(0, 0)] * (_WINDOW_S + 1)
        self._queued = 0
        self._drains_empty: list[str] = []
        self.finished: list[tuple[float, float, float]] | None = None
        """Set to a list to collect (arrival, first token, end) of each request."""
        self.latencies: list[float] | None = None
        self.stats_in_system = 0.0
        """Integral of the number of requests in the plant over time, for Little's law."""
        self._last = 0.0
        self._in_system = 0

    def play(self, progress: Callable[[int], None] | None = None, knob: float = 1.0) -> Score:
        """Play the load to its end; requests that are then in the plant are let go."""
        begin, end = self._load.start, len(self._load.arrivals)
        self.roster.place(min(self._policy.start, self.roster.max_replicas), 0.0)
        tick_s = int(self._policy.tick_s)
        for second in range(end - begin):
            if self.roster.due_at() <= second:
                self._run_until(float(second))
                self.roster.advance(float(second))
            if second % tick_s == 0:
                self._run_until(float(second))
                self._apply(self.balancer.poll(float(second)), float(second))
                self._end_drains(float(second))
                self._policy.tick(self._reading(second), self.roster)
            self._arrive(int(self._load.arrivals[begin + second]), float(second))
            self._ring[second % (_WINDOW_S + 1)] = (self._offered, self._served)
            if progress is not None and second % 60 == 59:
                progress(60)
        return self.tally.score(self._policy.name, knob, self.roster, float(end - begin))

    def _arrive(self, count: int, second: float) -> None:
        """The requests of one second, at uniform instants; what happens at replicas in between comes in its turn."""
        given = self._given
        if given is not None:
            while given and given[0][0] < second + 1.0:
                at, prompt, output = given.popleft()
                self._run_until(at)
                self._offer(_Job(at, prompt, output), at)
        elif count:
            rng, lengths = self._rng, self._lengths
            instants = np.sort(rng.random(count)) + second
            picks = rng.integers(0, len(lengths.prompt_tokens), count)
            prompts, outputs = lengths.prompt_tokens[picks].tolist(), lengths.output_tokens[picks].tolist()
            for at, prompt, output in zip(instants.tolist(), prompts, outputs, strict=True):
                self._run_until(at)
                self._offer(_Job(at, prompt, output), at)
        self._run_until(second + 1.0)

    # ------------------------------------------------------------------ events

    def _run_until(self, now: float) -> None:
        due = self._due
        while due and due[0][0] <= now:
            at, _, machine = heappop(due)
            if at != machine.due:
                continue
            if self._queued:
                self._expire(at)
            self._look(machine, at)
        if self._queued:
            self._expire(now)

    def _expire(self, now: float) -> None:
        at = self.balancer.next_deadline()
        if at is not None and at <= now:
            self._apply(self.balancer.poll(now), now)

    def _look(self, machine: _Machine, now: float) -> None:
        balancer = self.balancer
        for kind, job, at, _ in machine.replica.advance(now):
            assert isinstance(job, _Job)
            assert job.ticket is not None
            if kind is EventKind.FIRST_TOKEN:
                job.first = at
                job.late = at - job.arrived > self._first_token_s
                balancer.first_byte(job.ticket, at)
            else:
                self._finish(job, at)
                effects = balancer.finish(job.ticket, Outcome.OK, at)
                if effects:
                    self._apply(effects, at)
        self._arm(machine)

    def _finish(self, job: _Job, at: float) -> None:
        self._count(at, -1)
        self._served += 1
        if self.finished is not None:
            self.finished.append((job.arrived, job.first, at))
        if self.latencies is not None and at >= UNSCORED_S:
            self.latencies.append(at - job.arrived)
        late = job.late or (job.output > 1 and (at - job.first) / (job.output - 1) > self._inter_token_s)
        self._missed += late
        delay_s = job.first - job.arrived - self._model.alone_s(job.prompt, 1)[0]
        self.tally.add(job.arrived, 1.0, float(late), 0.0, max(0.0, delay_s))

    def _arm(self, machine: _Machine) -> None:
        at = machine.replica.next_event_at()
        if at != machine.due:
            machine.due = at
            if at != inf:
                self._sequence += 1
                heappush(self._due, (at, self._sequence, machine))

    def _count(self, now: float, change: int) -> None:
        self.stats_in_system += self._in_system * (now - self._last)
        self._last = now
        self._in_system += change

    # ------------------------------------------------------------------ requests

    def _offer(self, job: _Job, now: float) -> None:
        self._offered += 1
        info = RequestInfo(id="", surface=SurfaceName.CHAT, model=_MODEL, prompt_tokens=job.prompt, stream=True)
        decision = self.balancer.offer(info, now, job)
        if isinstance(decision, Rejected):
            self._refuse(job, now)
            return
        job.ticket = decision.ticket
        self._count(now, 1)
        if isinstance(decision, Routed):
            self._send(job, now)
        else:
            self._queued += 1

    def _send(self, job: _Job, now: float) -> None:
        assert job.ticket is not None
        assert job.ticket.replica is not None
        machine = self._machines[job.ticket.replica.id]
        machine.replica.submit(SimRequest(job, job.prompt, job.output), now)
        self._arm(machine)

    def _refuse(self, job: _Job, now: float) -> None:
        self._missed += 1
        self.tally.add(job.arrived, 1.0, 1.0, 1.0, now - job.arrived)

    def _apply(self, effects: Effects, now: float) -> None:
        for effect in effects:
            if isinstance(effect, Routed):
                self._queued -= 1
                job = effect.ticket.owner
                assert isinstance(job, _Job)
                self._send(job, now)
            elif isinstance(effect, Rejected) and effect.ticket is not None:
                self._queued -= 1
                self._count(now, -1)
                job = effect.ticket.owner
                assert isinstance(job, _Job)
                self._refuse(job, now)

    # ------------------------------------------------------------------ replicas come and go

    def _joined(self, replica: SimReplica, now: float) -> None:
        id_ = f"r{replica.ordinal}"
        self._machines[id_] = _Machine(replica.ordinal, self._model)
        self._endpoints[id_] = Endpoint(
            id_, id_, 80, models=(_MODEL,), runtime="generic", max_in_flight=self._model.max_running
        )
        self._apply(self.balancer.set_endpoints(self._endpoints.values(), now), now)
        for _ in range(self.balancer.settings.health.rise):
            self._apply(self.balancer.observe_probe(id_, _READY, now), now)

    def _left(self, replica: SimReplica, now: float) -> None:
        self._apply(self.balancer.drain(f"r{replica.ordinal}", now, _DRAIN_S), now)

    def _returned(self, replica: SimReplica, now: float) -> None:
        self._apply(self.balancer.undrain(f"r{replica.ordinal}", now), now)

    def _end_drains(self, now: float) -> None:
        for replica in list(self.roster.draining.values()):
            if not self.balancer.replicas[f"r{replica.ordinal}"].in_flight and not getattr(
                self._policy, "stops", False
            ):
                self.roster.gone(replica, now)
        gone = self._endpoints.keys() - {f"r{ordinal}" for ordinal in self.roster.alive}
        if gone:
            for id_ in gone:
                self.roster.killed += self.balancer.replicas[id_].in_flight
                del self._endpoints[id_]
                del self._machines[id_]
            self._apply(self.balancer.set_endpoints(self._endpoints.values(), now), now)

    def _reading(self, second: int) -> Reading:
        roster, balancer = self.roster, self.balancer
        running = 0
        for replica in roster.alive.values():
            known = balancer.replicas.get(f"r{replica.ordinal}")
            replica.in_flight = known.in_flight if known is not None else 0
            running += known.in_flight if known is not None and replica.phase == "ready" else 0
        window = min(second, _WINDOW_S)
        newest = self._ring[(second - 1) % (_WINDOW_S + 1)]
        oldest = self._ring[(second - 1 - _WINDOW_S) % (_WINDOW_S + 1)] if second > _WINDOW_S else (0, 0)
        return Reading(
            now=float(second), ready=len(roster.ready), starting=len(roster.starting), in_flight=float(running),
            queued=float(self._queued),
            requests_per_s=(newest[0] - oldest[0]) / window if window else None,
            served_per_s=(newest[1] - oldest[1]) / window if window else None,
            offered_total=float(self._offered), missed_total=float(self._missed),
        )  # fmt: skip
