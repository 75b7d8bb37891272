"""A balancer in a box: time is a value, replicas are ready unless a test says otherwise."""

from __future__ import annotations

import itertools
import random

from lb.balancer import Balancer
from lb.effects import Decision, Outcome, Queued, Routed, Ticket
from lb.endpoint import Endpoint
from lb.request import RequestInfo, SurfaceName, Usage
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import LbSettings

READY = ProbeResult(ProbeStatus.READY)
LOADING = ProbeResult(ProbeStatus.LOADING, "503 Loading model")
FAILED = ProbeResult(ProbeStatus.FAILED, "connection refused")


def endpoint(name: str, **fields: object) -> Endpoint:
    fields.setdefault("models", ("m",))
    return Endpoint(id=name, host=f"{name}.test", port=8000, **fields)  # type: ignore[arg-type]


class Box:
    """Drives one balancer; `now` moves only by hand."""

    def __init__(
        self, settings: LbSettings, *, abandons: dict[str, bool] | None = None, any_model: frozenset[str] = frozenset()
    ) -> None:
        self.now = 1000.0
        self.effects: list[object] = []
        self._ids = itertools.count()
        self.balancer = Balancer(settings, rng=random.Random(7), now=self.now, abandons=abandons, any_model=any_model)

    def join(self, *names: str, **fields: object) -> None:
        self.endpoints(*(endpoint(name, **fields) for name in names))
        for name in names:
            self.probe(name)

    def endpoints(self, *endpoints: Endpoint) -> None:
        self.effects += self.balancer.set_endpoints(endpoints, self.now)

    def probe(self, name: str, result: ProbeResult = READY, times: int = 1) -> None:
        for _ in range(times):
            self.effects += self.balancer.observe_probe(name, result, self.now)

    def offer(self, **fields: object) -> Decision:
        fields.setdefault("model", "m")
        fields.setdefault("surface", SurfaceName.CHAT)
        fields.setdefault("prompt_tokens", 500)
        fields.setdefault("max_tokens", 200)
        fields.setdefault("stream", True)
        info = RequestInfo(id=f"r{next(self._ids)}", **fields)  # type: ignore[arg-type]
        return self.balancer.offer(info, self.now)

    def routed(self, **fields: object) -> Ticket:
        decision = self.offer(**fields)
        assert isinstance(decision, Routed), decision
        return decision.ticket

    def queued(self, **fields: object) -> Ticket:
        decision = self.offer(**fields)
        assert isinstance(decision, Queued), decision
        return decision.ticket

    def finish(self, ticket: Ticket, outcome: Outcome = Outcome.OK, **fields: object) -> list[object]:
        if outcome is Outcome.OK and "usage" not in fields:
            fields["usage"] = Usage(500, 100)
            ticket.bytes_out = max(1, ticket.bytes_out)
        effects = list(self.balancer.finish(ticket, outcome, self.now, **fields))  # type: ignore[arg-type]
        self.effects += effects
        return effects

    def poll(self, after_s: float = 0.0) -> list[object]:
        self.now += after_s
        effects = list(self.balancer.poll(self.now))
        self.effects += effects
        return effects

    def state(self, name: str) -> str:
        return str(self.balancer.replicas[name].state)

    def where(self, count: int, **fields: object) -> dict[str, int]:
        """Where `count` requests would go one at a time."""
        seen: dict[str, int] = {}
        for _ in range(count):
            ticket = self.routed(**fields)
            assert ticket.replica is not None
            seen[ticket.replica.id] = seen.get(ticket.replica.id, 0) + 1
            self.finish(ticket, Outcome.CLIENT_CLOSED)
        return seen


def settings(**sections: dict[str, object]) -> LbSettings:
    return LbSettings.model_validate(sections)


def on(box: Box, name: str, **fields: object) -> Ticket:
    """A request on the replica `name`."""
    others = []
    for _ in range(50):
        ticket = box.routed(**fields)
        assert ticket.replica is not None
        if ticket.replica.id == name:
            for other in others:
                box.finish(other, Outcome.CLIENT_CLOSED)
            return ticket
        others.append(ticket)
    raise AssertionError(f"nothing goes to {name}")
