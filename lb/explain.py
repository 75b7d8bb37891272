"""Why a request went where it went: every candidate, every term, from a compact record of the decision."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lb.effects import Ticket
from lb.ledger import Entry
from lb.replica import Replica
from lb.request import RequestInfo
from lb.routing.form import Form, KeptForm, Shape, early_seconds, overlap, seconds
from lb.routing.scorers import FIRST_TOKEN, SCORERS
from lb.routing.scorers.prefix_affinity import cached_tokens
from lb.routing.weighing import Weighing

RECENT = 4096
"""Decisions remembered; at 100 requests a second the last 40 s, some 10 MB with many replicas."""
MOST_CANDIDATES = 32
"""Candidates kept of one decision; with more, those with the least work ahead came first."""


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """One candidate of a decision."""

    replica_id: str
    has_room: bool
    """False: it was full, and could not be chosen whatever its cost."""
    cost_s: float
    """Sum of the terms: predicted seconds, for the request and for those it delays."""
    terms: Mapping[str, float]
    """Weighted seconds by scorer. `wait` is the clock's part of `predicted_work`; `first_token` is what the request's
    own time before its first token weighs more than the rest."""
    in_flight: int
    """Requests in its batch then, those of others included."""
    cached_tokens: float
    """Prompt tokens that it was believed to hold."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One decision on one request; a request that was tried again or waited has the last one."""

    request_id: str
    at: float
    """Monotonic seconds."""
    model: str | None
    tenant: str
    strategy: str
    outcome: str
    """`routed`, `queued`, or the reason of a refusal."""
    chosen: str | None
    reason: str
    """The main reason in one word or two."""
    prompt_tokens: float
    output_tokens: float
    candidates: tuple[CandidateScore, ...]
    """The cheapest first; empty for strategies that do not score, and for requests that waited."""


class Candidate:
    """What a decision saw of one replica. Made once and kept on the replica until its forms are renewed."""

    __slots__ = ("free_at", "has_room", "live", "replica", "replica_id", "shape", "standing", "waiting")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.replica_id = replica.endpoint.id
        self.has_room = replica.in_flight < replica.limit
        self.free_at = replica.free_at
        self.waiting = replica.waiting
        self.shape: Shape = replica.shape
        self.live: Sequence[KeptForm] = replica.live
        self.standing: Sequence[Form] = replica.standing


class Record:
    """What a decision leaves behind on the hot path: references, no copies."""

    __slots__ = ("at", "candidates", "chosen", "entry", "info", "outcome", "reason", "weighing")

    def __init__(
        self,
        info: RequestInfo,
        entry: Entry,
        at: float,
        outcome: str,
        chosen: str | None,
        reason: str,
        candidates: Sequence[Candidate],
        weighing: Weighing,
    ) -> None:
        self.info = info
        self.entry = entry
        self.at = at
        self.outcome = outcome
        self.chosen = chosen
        self.reason = reason
        self.candidates = candidates
        self.weighing = weighing


def snapshot(replicas: Sequence[Replica]) -> list[Candidate]:
    """What a decision sees: every replica's forms as they were renewed for it."""
    found: list[Candidate] = []
    for one in replicas if len(replicas) <= MOST_CANDIDATES else replicas[:MOST_CANDIDATES]:
        seen = one.seen
        if seen is None:
            seen = one.seen = Candidate(one)
        found.append(seen)
    return found


class Recent:
    """The last decisions."""

    __slots__ = ("_records", "add")

    def __init__(self) -> None:
        self._records: deque[Record] = deque(maxlen=RECENT)
        self.add = self._records.append

    def note(self, ticket: Ticket, entry: Entry, now: float, outcome: str, weighing: Weighing) -> None:
        """A decision that chose no replica."""
        self.add(Record(ticket.info, entry, now, outcome, None, outcome, (), weighing))

    def find(self, request_id: str) -> Explanation | None:
        for record in reversed(self._records):
            if record.info.id == request_id:
                return _explain(record)
        return None


def _explain(record: Record) -> Explanation:
    info, entry = record.info, record.entry
    scores = sorted((_score(record, one) for one in record.candidates), key=lambda score: score.cost_s)
    return Explanation(
        request_id=info.id,
        at=record.at,
        model=info.model,
        tenant=info.tenant,
        strategy=record.weighing.settings.strategy,
        outcome=record.outcome,
        chosen=record.chosen,
        reason=record.reason,
        prompt_tokens=entry.prompt,
        output_tokens=entry.output,
        candidates=tuple(scores),
    )


def _score(record: Record, candidate: Candidate) -> CandidateScore:
    replica, shape = candidate.replica, candidate.shape
    entry, weighing = record.entry, record.weighing
    weights = weighing.weights
    wait_s = candidate.free_at - record.at
    if wait_s < 0.0:
        wait_s = -wait_s if candidate.waiting else 0.0
    shared = overlap(shape[6], shape[7], entry.output)
    quad = entry.prompt * entry.prompt
    terms: dict[str, float] = {"wait": wait_s * weights["predicted_work"]}
    early_s = terms["wait"]
    live = [kept.form for kept in candidate.live]
    for names, forms in zip(weighing.names, (live, candidate.standing), strict=True):
        for name, form in zip(names, forms, strict=True):
            weight = weights[name]
            terms[name] = weight * seconds(form, entry.prompt, quad, entry.output, entry.context, shared)
            if SCORERS[name].own:
                early_s += weight * early_seconds(form, entry.prompt, quad)
    cached = 0.0
    for name, _, preference in weighing.concerned(entry, record.info):
        terms[name] = weights[name] * preference.seconds(replica, shape, entry, record.info)
        if preference.own:
            early_s += terms[name]
        if name == "prefix_affinity":
            cached = cached_tokens(replica, entry)
    terms[FIRST_TOKEN] = weights[FIRST_TOKEN] * early_s
    return CandidateScore(candidate.replica_id, candidate.has_room, sum(terms.values()), terms, int(shape[6]), cached)
