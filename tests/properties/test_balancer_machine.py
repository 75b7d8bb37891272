"""The balancer against everything that can happen to it, in any order: no ticket is lost, no sum drifts.

A rule-based state machine drives offers, first bytes, progress, ends, failures, retries, cancellations, readings,
probes, GPU states, drains, reloads, churn of replicas and the passing of time, and checks the books after each step.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lb.balancer import Balancer
from lb.effects import (
    REPLICA_FAULTS,
    Abort,
    Effects,
    Outcome,
    Queued,
    Rejected,
    ReplicaChanged,
    Routed,
    Ticket,
    TicketState,
    Withdraw,
)
from lb.endpoint import Endpoint
from lb.health.lifecycle import TRANSITIONS
from lb.replica import GpuReading, GpuState, Replica, ReplicaState
from lb.request import RequestInfo, SurfaceName, Usage
from lb.runtime import ProbeResult, ProbeStatus, RuntimeLoad
from lb.settings import LbSettings

NAMES = ("a", "b", "c", "d", "e")
MODELS = ("m", "m", "m", "n", "gone", None)
STRATEGIES = ("tidegate", "tidegate", "tidegate", "round-robin", "random", "least-requests", "p2c")
MOVES = {(str(before), str(after)) for (before, _), after in TRANSITIONS.items()} | {("", "joining")}


def endpoint(name: str, kind: int) -> Endpoint:
    """One of three descriptions of a replica: both models, one, or not known; kind 3 is another host under its name."""
    models = (("m", "n"), ("m",), (), ("m", "n"))[kind]
    return Endpoint(
        name, f"{name}{'-moved' if kind == 3 else ''}.test", 8000, models=models, zone="z" if kind else None
    )


class BalancerMachine(RuleBasedStateMachine):
    @initialize(
        seed=st.integers(0, 2**16), strategy=st.sampled_from(STRATEGIES), limit=st.integers(1, 3),
        queue=st.integers(0, 6), shortlist=st.sampled_from((4, 64)), panic=st.sampled_from((0.0, 0.6)),
    )  # fmt: skip
    def start(self, seed: int, strategy: str, limit: int, queue: int, shortlist: int, panic: float) -> None:
        self.now = 50.0
        self.options = {"strategy": strategy, "shortlist": shortlist}
        self.limit, self.queue_size, self.panic = limit, queue, panic
        self.rng = random.Random(seed)
        self.balancer = Balancer(self.policy(), rng=random.Random(seed), now=self.now, abandons={"llamacpp": True})
        self.open: dict[Ticket, None] = {}
        self.ids = 0
        self.offered = self.rejected = 0
        self.wanted: dict[str, Endpoint] = {}
        self.everyone: dict[Replica, None] = {}
        self.aborted: set[Ticket] = set()
        self.list_endpoints({name: endpoint(name, 0) for name in NAMES[:3]})
        self.all_come_up()

    def policy(self) -> LbSettings:
        return LbSettings.model_validate({
            "routing": self.options,
            "admission": {
                "default_max_in_flight": self.limit, "queue_requests": self.queue_size, "queue_wait": "20s",
                "cold_wait": "40s",
            },
            "health": {"panic_ratio": self.panic, "drain": "15s", "ejection": "4s", "failures": 3},
        })  # fmt: skip

    # ------------------------------------------------------------------ carrying effects out

    def apply(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Routed):
                self.was_routed(effect.ticket)
            elif isinstance(effect, Rejected):
                assert effect.ticket is not None
                assert effect.ticket.state is TicketState.FINISHED
                del self.open[effect.ticket]
                self.rejected += 1
            elif isinstance(effect, Abort):
                assert effect.ticket.state is TicketState.ROUTED
                self.aborted.add(effect.ticket)
            elif isinstance(effect, Withdraw):
                self.withdraw(effect.ticket)
            else:
                assert isinstance(effect, ReplicaChanged)
                assert (effect.previous, effect.current) in MOVES, effect
        self.everyone.update(dict.fromkeys(self.balancer.replicas.values()))

    def withdraw(self, ticket: Ticket) -> None:
        """Only what another replica can still take is withdrawn, and where none does, it stays."""
        old = ticket.replica
        assert ticket.state is TicketState.ROUTED
        assert ticket.info.stream
        assert not ticket.first_byte_at
        assert old is not None
        decision = self.balancer.retry(ticket, Outcome.HUNG, self.now)
        if decision is None:
            assert ticket.replica is old
            assert ticket in old.tickets
        elif isinstance(decision, Routed):
            self.was_routed(ticket)
            assert ticket.replica is not old
        elif isinstance(decision, Rejected):
            assert ticket.state is TicketState.FINISHED
            del self.open[ticket]
            self.rejected += 1
        self.apply(self.balancer.poll(self.now))

    def was_routed(self, ticket: Ticket) -> None:
        """Each new assignment goes to a replica that may take it."""
        assert ticket in self.open
        assert ticket.state is TicketState.ROUTED
        replica = ticket.replica
        assert replica is not None
        assert not replica.retired
        assert replica.selectable or (self.panic and replica.state is not ReplicaState.DRAINING), replica
        assert ticket in replica.tickets
        model = ticket.info.model
        assert replica.models is None or model is None or model in replica.models

    def routed(self) -> list[Ticket]:
        return [ticket for ticket in self.open if ticket.state is TicketState.ROUTED]

    def pick(self, tickets: list[Ticket], number: int) -> Ticket:
        return tickets[number % len(tickets)]

    # ------------------------------------------------------------------ requests

    @rule(model=st.sampled_from(MODELS), count=st.integers(2, 8), stream=st.booleans())
    def burst(self, model: str | None, count: int, stream: bool) -> None:
        for _ in range(count):
            self.offer_one(model=model, prompt_bytes=4000, body_bytes=4100, stream=stream, prefix=(0, 1))

    @precondition(lambda self: self.routed())
    @rule(number=st.integers(0, 999), outcome=st.sampled_from(sorted(REPLICA_FAULTS)))
    def break_down(self, number: int, outcome: Outcome) -> None:
        """Everything on one replica fails."""
        replica = self.pick(self.routed(), number).replica
        for ticket in [one for one in self.routed() if one.replica is replica]:
            if ticket.state is TicketState.ROUTED and ticket.replica is replica:
                self.end(ticket, outcome, None, 500)

    @rule(
        model=st.sampled_from(MODELS), prompt=st.integers(0, 60_000), stream=st.booleans(),
        priority=st.integers(-1, 1), blocks=st.integers(0, 6), patience=st.sampled_from((None, None, None, 0.0, 5.0)),
        session=st.sampled_from((None, None, 1, 2)), surface=st.sampled_from(SurfaceName), choices=st.integers(1, 2),
    )  # fmt: skip
    def offer(
        self, model: str | None, prompt: int, stream: bool, priority: int, blocks: int, patience: float | None,
        session: int | None, surface: SurfaceName, choices: int,
    ) -> None:  # fmt: skip
        self.offer_one(
            surface=surface, model=model, prompt_bytes=prompt, body_bytes=prompt + 50, stream=stream, priority=priority,
            prefix=tuple(range(blocks)), session=session, choices=choices,
            deadline_at=None if patience is None else self.now + patience,
        )  # fmt: skip

    def offer_one(self, **fields: Any) -> None:
        self.ids += 1
        info = RequestInfo(id=f"r{self.ids}", **fields)
        decision = self.balancer.offer(info, self.now)
        if isinstance(decision, Rejected):
            assert decision.status in (404, 429, 503)
            assert decision.retry_after_s is None or decision.retry_after_s >= 1.0
            return
        self.open[decision.ticket] = None
        self.offered += 1
        if isinstance(decision, Routed):
            self.was_routed(decision.ticket)
        else:
            assert isinstance(decision, Queued)
            assert decision.ticket.state is TicketState.QUEUED

    @precondition(lambda self: self.routed())
    @rule(number=st.integers(0, 999))
    def first_byte(self, number: int) -> None:
        ticket = self.pick(self.routed(), number)
        if not ticket.first_byte_at:
            self.balancer.first_byte(ticket, self.now)
            ticket.events += 1

    @precondition(lambda self: self.routed())
    @rule(number=st.integers(0, 999), events=st.integers(1, 400))
    def progress(self, number: int, events: int) -> None:
        ticket = self.pick(self.routed(), number)
        if ticket.info.stream and ticket.first_byte_at:
            ticket.events += events
            ticket.bytes_out += 10 * events
            ticket.progress_at = self.now
            self.balancer.progress(ticket, self.now)

    @precondition(lambda self: self.open)
    @rule(
        number=st.integers(0, 999), outcome=st.sampled_from(Outcome), output=st.none() | st.integers(0, 3000),
        status=st.sampled_from((0, 400, 429, 500, 503)),
    )  # fmt: skip
    def finish(self, number: int, outcome: Outcome, output: int | None, status: int) -> None:
        ticket = self.pick(list(self.open), number)
        if ticket.state is TicketState.QUEUED:
            outcome = Outcome.CLIENT_CLOSED
        self.end(ticket, outcome, None if output is None else Usage(100, output, 10), status)

    def end(self, ticket: Ticket, outcome: Outcome, usage: Usage | None, status: int) -> None:
        del self.open[ticket]
        self.apply(self.balancer.finish(ticket, outcome, self.now, status=status, usage=usage))
        assert ticket.state is TicketState.FINISHED

    @precondition(lambda self: self.routed())
    @rule(
        number=st.integers(0, 999), outcome=st.sampled_from(Outcome), status=st.sampled_from((0, 429, 500, 502, 503)),
        rest=st.sampled_from((None, 0.0, 3.0)),
    )  # fmt: skip
    def try_again(self, number: int, outcome: Outcome, status: int, rest: float | None) -> None:
        self.retry(number, outcome, status, rest)

    def retry(self, number: int, outcome: Outcome, status: int, rest: float | None) -> None:
        ticket = self.pick(self.routed(), number)
        if ticket.first_byte_at:
            return
        old, tried = ticket.replica, ticket.excluded
        assert old is not None
        decision = self.balancer.retry(ticket, outcome, self.now, status=status, retry_after_s=rest)
        if decision is None:
            assert ticket.state is TicketState.ROUTED
            assert ticket.replica is old
            assert ticket.excluded == tried
            del self.open[ticket]
            self.apply(self.balancer.finish(ticket, outcome, self.now, status=status))
        elif isinstance(decision, Routed):
            self.was_routed(ticket)
            assert ticket.replica is not old
            assert old.id in ticket.excluded
            assert ticket not in old.tickets
        elif isinstance(decision, Queued):
            assert ticket.state is TicketState.QUEUED
            assert ticket.replica is None
        else:
            assert ticket.state is TicketState.FINISHED
            del self.open[ticket]
            self.rejected += 1

    @precondition(lambda self: self.routed())
    @rule(number=st.integers(0, 999))
    def refused(self, number: int) -> None:
        """The most usual reason for a second try."""
        self.retry(number, Outcome.CONNECT_FAILED, 0, None)

    # ------------------------------------------------------------------ the world

    @rule(name=st.sampled_from(NAMES), kind=st.integers(0, 3))
    def join(self, name: str, kind: int) -> None:
        """A replica is listed, or described anew."""
        self.list_endpoints({**self.wanted, name: endpoint(name, kind)})

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        self.list_endpoints({other: one for other, one in self.wanted.items() if other != name})

    @rule()
    def all_leave(self) -> None:
        self.list_endpoints({})

    def list_endpoints(self, wanted: dict[str, Endpoint]) -> None:
        self.wanted = wanted
        self.apply(self.balancer.set_endpoints(wanted.values(), self.now))
        assert set(self.balancer.replicas) == set(wanted)

    @rule(
        name=st.sampled_from(NAMES), status=st.sampled_from((ProbeStatus.READY,) * 3 + tuple(ProbeStatus)),
        models=st.sampled_from((None, None, ("m",), ("n",), ())), runtime=st.sampled_from((None, "vllm", "llamacpp")),
    )  # fmt: skip
    def probe(self, name: str, status: ProbeStatus, models: tuple[str, ...] | None, runtime: str | None) -> None:
        self.apply(self.balancer.observe_probe(name, ProbeResult(status, models=models, runtime=runtime), self.now))

    @rule()
    def all_come_up(self) -> None:
        for name in NAMES:
            for _ in range(2):
                self.apply(self.balancer.observe_probe(name, ProbeResult(ProbeStatus.READY), self.now))

    @rule(
        name=st.sampled_from(NAMES), running=st.none() | st.floats(0, 300), waiting=st.none() | st.floats(0, 50),
        kv=st.none() | st.floats(-1, 1.2), capacity=st.none() | st.integers(0, 100_000),
        slots=st.none() | st.integers(0, 8), tokens=st.none() | st.floats(allow_nan=True),
    )  # fmt: skip
    def load(
        self, name: str, running: float | None, waiting: float | None, kv: float | None, capacity: int | None,
        slots: int | None, tokens: float | None,
    ) -> None:  # fmt: skip
        reading = RuntimeLoad(
            running=running, waiting=waiting, kv_usage_ratio=kv, kv_capacity_tokens=capacity, max_running=slots,
            output_tokens_total=tokens,
        )  # fmt: skip
        self.apply(self.balancer.observe_load(name, reading, self.now))

    @rule(name=st.sampled_from(NAMES))
    def load_failed(self, name: str) -> None:
        self.apply(self.balancer.observe_load_failed(name, "timed out", self.now))

    @rule(name=st.sampled_from(NAMES), state=st.none() | st.sampled_from(GpuState), speed=st.none() | st.floats(0, 1))
    def gpu(self, name: str, state: GpuState | None, speed: float | None) -> None:
        reading = None if state is None else GpuReading(state, headroom_ratio=speed, speed_ratio=speed)
        self.apply(self.balancer.observe_gpu(name, reading, self.now))

    @rule(name=st.sampled_from(NAMES), patience=st.none() | st.floats(0, 30))
    def drain(self, name: str, patience: float | None) -> None:
        self.apply(self.balancer.drain(name, self.now, patience))

    @rule(name=st.sampled_from(NAMES))
    def undrain(self, name: str) -> None:
        self.apply(self.balancer.undrain(name, self.now))

    @rule(strategy=st.sampled_from(STRATEGIES), limit=st.integers(1, 4), weight=st.sampled_from((0.0, 1.0, 5.0)))
    def reload(self, strategy: str, limit: int, weight: float) -> None:
        self.limit = limit
        self.options = {**self.options, "strategy": strategy, "weights": {"predicted_work": weight}}
        self.apply(self.balancer.reconfigure(self.policy(), self.now))

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.apply(self.balancer.poll(self.now))
        deadline = self.balancer.next_deadline()
        assert deadline is None or deadline > self.now

    @rule()
    def look(self) -> None:
        view = self.balancer.view(self.now)
        assert view.open_tickets == len(self.open)
        assert view.queued == sum(view.queue_depth.values())
        demand = self.balancer.demand(self.now)
        assert sum(model.queued for model in demand.models.values()) == view.queued
        # Requests may still run for a model that is no longer served and so no longer listed.
        assert sum(model.in_flight for model in demand.models.values()) <= len(self.routed())
        for model in demand.models.values():
            assert model.outstanding_tokens >= 0.0
            assert model.backlog_s >= 0.0
        if self.ids:
            explanation = self.balancer.explain(f"r{self.ids}")
            if explanation is not None:
                for score in explanation.candidates:
                    assert abs(score.cost_s - sum(score.terms.values())) < 1e-6 * (1.0 + abs(score.cost_s))

    # ------------------------------------------------------------------ the books

    @invariant()
    def each_replica_has_its_tickets(self) -> None:
        where: dict[Replica, list[Ticket]] = {replica: [] for replica in self.everyone}
        for ticket in self.routed():
            assert ticket.replica is not None
            where.setdefault(ticket.replica, []).append(ticket)
        for replica, tickets in where.items():
            assert list(replica.tickets) == sorted(tickets, key=list(replica.tickets).index)
            assert replica.in_flight == len(tickets) == len(replica.tickets)
            assert replica.unary == sum(not ticket.info.stream for ticket in tickets)
            assert 0 <= replica.waiting <= replica.in_flight
            assert replica.waiting_tokens >= 0.0
            assert replica.stream_tokens >= 0.0
            assert replica.unary_tokens >= 0.0
            assert replica.kv_tokens >= 0.0
            if not tickets:
                books = (replica.waiting_tokens, replica.waiting_tokens2, replica.output_tokens_left, replica.kv_tokens)
                assert books == (0.0, 0.0, 0.0, 0.0)

    @invariant()
    def nobody_is_lost_in_the_queue(self) -> None:
        waiting = [ticket for ticket in self.open if ticket.state is TicketState.QUEUED]
        assert self.balancer.view(self.now).queued == len(waiting)
        assert all(ticket.replica is None for ticket in waiting)

    @invariant()
    def the_gone_are_gone(self) -> None:
        for replica in self.everyone:
            if replica.state is ReplicaState.GONE:
                assert replica.retired
                assert not replica.tickets
            if replica.retired and not replica.tickets:
                assert replica.state is ReplicaState.GONE, replica

    def teardown(self) -> None:
        """Everything ends: the books close at zero."""
        if not hasattr(self, "balancer"):
            return
        while self.open:
            ticket = next(iter(self.open))
            del self.open[ticket]
            self.apply(self.balancer.finish(ticket, Outcome.CLIENT_CLOSED, self.now))
        view = self.balancer.view(self.now)
        assert (view.open_tickets, view.queued, view.queue_body_bytes) == (0, 0, 0)
        demand = self.balancer.demand(self.now)
        assert all((one.in_flight, one.queued, one.outstanding_tokens) == (0, 0, 0.0) for one in demand.models.values())


TestBalancerMachine = BalancerMachine.TestCase
TestBalancerMachine.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
