"""What a finished request teaches: token ratios, answer lengths, the replica's speed and its cache."""

from __future__ import annotations

from lb.cost.output_length import OutputLengths
from lb.cost.tokens import TokenEstimator
from lb.effects import Ticket
from lb.ledger import Entry
from lb.replica import Replica, pace_of
from lb.request import RequestInfo, SurfaceName, Usage
from lb.routing.scorers.curiosity import FRESH_S
from lb.signals import Judge

UNREAD_TOKENS_MAX = 4096.0
"""A body that no surface could read is taken for text, up to this: images and audio are not text."""
SILENT = frozenset({SurfaceName.EMBEDDINGS, SurfaceName.RERANK, SurfaceName.SCORE, SurfaceName.OLLAMA_EMBED})
"""Surfaces that generate no tokens."""
_FAST = 64
"""Lessons that each replica and estimate takes in as they come; beyond, one lesson each interval is as good, and the
hot path stays short."""
_INTERVAL_S = 0.05
_MIN_EVENTS = 8
"""Gaps between fewer tokens than this are mostly noise."""
_FRESH_MAX = 16
"""An expected answer is reckoned anew after so many answers at the latest; that takes microseconds, and every request
needs one."""
_MAX_FRESH = 4096
_Group = tuple[str | None, str, str, int | None]
"""(model, tenant, surface, limit)"""
_STEP = 0.1
"""Weight of one request in tokens per event and in trust in the prefix index."""
_MAX_TOKENS_PER_EVENT = 16.0


class Lessons:
    """Feeds the estimators, sampled once they know enough."""

    __slots__ = ("_fresh", "_next_at", "lengths", "tokens")

    def __init__(self, tokens: TokenEstimator, lengths: OutputLengths) -> None:
        self.tokens = tokens
        self.lengths = lengths
        self._next_at = 0.0
        self._fresh: dict[_Group, tuple[float, int]] = {}
        """Expected answers by group, and until how many observations they are good."""

    def estimate(self, info: RequestInfo) -> tuple[float, float]:
        """(prompt tokens, expected output tokens of all choices)."""
        if info.prompt_tokens is not None:
            prompt = float(info.prompt_tokens)
        elif info.prompt_bytes:
            prompt = self.tokens.estimate(info.model, info.prompt_bytes, info.prompt_wide_ratio)
        elif info.body_bytes or info.surface is not SurfaceName.OTHER:
            prompt = min(UNREAD_TOKENS_MAX, self.tokens.estimate(info.model, info.body_bytes, 0.0))
        else:
            return 0.0, 0.0
        if info.surface in SILENT:
            return prompt, 0.0
        key = (info.model, info.tenant, info.surface._value_, info.max_tokens)
        known = self._fresh.get(key)
        if known is None or known[1] < self.lengths.observations:
            known = self._renew(key)
        return prompt, known[0] * info.choices if info.choices > 1 else known[0]

    def remaining(self, info: RequestInfo, seen_tokens: float) -> float:
        """Output tokens still to come of an answer, all choices, of which each has `seen_tokens`."""
        choices = max(1, info.choices)
        surface = info.surface._value_
        return choices * self.lengths.remaining(info.model, info.tenant, surface, info.max_tokens, seen_tokens)

    def _renew(self, key: _Group) -> tuple[float, int]:
        """Expected answer of a group of requests, good until some more answers were seen."""
        if len(self._fresh) >= _MAX_FRESH:
            self._fresh.clear()
        seen = self.lengths.observations
        fresh = (self.lengths.remaining(*key, 0.0), seen + min(_FRESH_MAX, seen // 8))
        self._fresh[key] = fresh
        return fresh

    def first_byte(self, replica: Replica, entry: Entry, observed_s: float, now: float) -> None:
        """A stream's time to first token. Those that waited for a slot say nothing of the speed."""
        slots = replica.slots
        if slots is not None and entry.batch >= slots:
            return
        if replica.full_at is not None or now < replica.learned_at + _INTERVAL_S:
            return
        speed = replica.speed
        token_s = replica.pace.token_s
        ahead = entry.ahead_s / token_s if token_s > 0.0 else 0.0
        speed.learn_first_token(entry.uncached, ahead, entry.batch, observed_s)
        self._learned(replica, now)

    def answer(self, ticket: Ticket, entry: Entry, replica: Replica, usage: Usage | None, now: float) -> float:
        """A complete answer. Returns its output tokens, as exactly as is known."""
        info = ticket.info
        output = None if usage is None else usage.output_tokens
        if usage is not None:
            self._usage(info, entry, replica, usage, ticket, now)
        if output is not None:
            produced = float(output)
        elif info.stream:
            produced = ticket.events * replica.tokens_per_event
        else:
            produced = entry.output
        if ticket.routed_at <= replica.silent_at:
            return produced  # a hang is not how fast it is: it would look slow to all that come, and teach no other
        if info.stream:
            self._stream_steps(ticket, entry, replica, produced, now)
        elif output is not None:
            self._unary_steps(ticket, entry, replica, produced, now)
        return produced

    def _usage(
        self, info: RequestInfo, entry: Entry, replica: Replica, usage: Usage, ticket: Ticket, now: float
    ) -> None:
        output, prompt = usage.output_tokens, usage.prompt_tokens
        if output is not None and ticket.events >= _MIN_EVENTS and output > 0:
            ratio = min(_MAX_TOKENS_PER_EVENT, output / ticket.events)
            replica.tokens_per_event += (ratio - replica.tokens_per_event) * _STEP
        if usage.cached_tokens is not None and entry.cached > 0.0:
            seen = min(1.0, usage.cached_tokens / (entry.cached / replica.cache_trust))
            replica.cache_trust = max(0.05, replica.cache_trust + (seen - replica.cache_trust) * _STEP)
        if now < self._next_at and self.lengths.observations > _FAST:
            return
        self._next_at = now + _INTERVAL_S
        if prompt is not None and info.prompt_tokens is None and info.prompt_bytes > 0:
            self.tokens.learn(info.model, info.prompt_bytes, info.prompt_wide_ratio, prompt)
        if output is not None and entry.output > 0.0:
            choices = max(1, info.choices)
            self.lengths.learn(info.model, info.tenant, info.surface._value_, info.max_tokens, output / choices)

    def _stream_steps(self, ticket: Ticket, entry: Entry, replica: Replica, produced: float, now: float) -> None:
        """Mean gap between the tokens of one sequence."""
        choices = max(1, ticket.info.choices)
        gaps = produced / choices - 1.0
        if ticket.events < _MIN_EVENTS or gaps < _MIN_EVENTS - 1 or now < replica.learned_at + _INTERVAL_S:
            return
        took_s = ticket.progress_at - ticket.first_byte_at
        if took_s > 0.0:
            self._steps(replica, entry, took_s / gaps, int(gaps), now)

    def _unary_steps(self, ticket: Ticket, entry: Entry, replica: Replica, produced: float, now: float) -> None:
        """The whole time less the predicted prefill, where the tokens make most of it."""
        choices = max(1, ticket.info.choices)
        gaps = produced / choices
        if gaps < _MIN_EVENTS or now < replica.learned_at + _INTERVAL_S:
            return
        total_s = now - ticket.routed_at
        decode_s = total_s - max(0.0, entry.prefill_end - ticket.routed_at) - replica.pace.prefill_s
        if decode_s > 0.5 * total_s:
            self._steps(replica, entry, decode_s / gaps, int(gaps), now)

    def _steps(self, replica: Replica, entry: Entry, gap_s: float, count: int, now: float) -> None:
        batch = 1.0 + 0.5 * (entry.first_batch + replica.in_flight + replica.foreign)
        slots = replica.slots
        if slots is not None and batch > slots:
            batch = float(slots)
        replica.speed.learn_steps(batch, replica.kv_tokens + entry.kv, gap_s, count)
        self._learned(replica, now)

    def _learned(self, replica: Replica, now: float) -> None:
        known = replica.speed.coefficients
        if known.first_tokens + known.steps > _FAST:
            replica.learned_at = now
        replica.pace = pace_of(replica.speed)
        if now - replica.taught_at > FRESH_S:
            replica.settled = False
        replica.taught_at = now


def answered(judge: Judge, ticket: Ticket, entry: Entry, produced: float, now: float) -> None:
    """Hold a whole answer of `produced` tokens against what could be expected."""
    first_at = ticket.first_byte_at
    total_s = now - ticket.offered_at
    if entry.unary or first_at <= 0.0:
        judge.answered(-1.0, -1.0, total_s, produced, now)
        return
    gaps = produced / max(1, ticket.info.choices) - 1.0
    gap_s = (ticket.progress_at - first_at) / gaps if gaps >= 1.0 else -1.0
    judge.answered(first_at - ticket.offered_at, gap_s, total_s, produced, now)
