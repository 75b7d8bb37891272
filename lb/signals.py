"""Offered demand per model, counted where it arrives: what the forecaster and the autoscaler live on."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

_BINS = 60
"""One-second bins: a minute smooths arrivals enough for a rate and is short enough for a spike."""


class Window:
    """Counts and sums over the last minute in one-second bins. O(1) to add, O(bins) to read."""

    __slots__ = ("_counts", "_second", "_sums")

    def __init__(self) -> None:
        self._counts = [0] * _BINS
        self._sums = [0.0] * _BINS
        self._second = 0

    def add(self, amount: float, now: float) -> None:
        second = int(now)
        if second != self._second:
            self._advance(second)
        bin_ = second % _BINS
        self._counts[bin_] += 1
        self._sums[bin_] += amount

    def total(self, now: float) -> tuple[int, float]:
        """(how many, their sum)"""
        self._advance(int(now))
        return sum(self._counts), sum(self._sums)

    def _advance(self, second: int) -> None:
        behind = second - self._second
        if behind <= 0:
            return
        if behind >= _BINS:
            self._counts = [0] * _BINS
            self._sums = [0.0] * _BINS
        else:
            for empty in range(self._second + 1, second + 1):
                self._counts[empty % _BINS] = 0
                self._sums[empty % _BINS] = 0.0
        self._second = second


@dataclass(frozen=True, slots=True)
class Objective:
    """What a request may expect; one that gets less is a miss."""

    first_token_s: float
    """From its arrival, waiting included."""
    inter_token_s: float
    """Mean gap between the tokens of its answer."""


_BOUNDS_S = tuple(0.001 * 1.15**step for step in range(110))
"""From a millisecond to more than an hour in steps of 15 %: a quantile read from them is at most 15 % too high."""
_TURN_S = 60.0
"""A minute alone can have too few answers for a 95 % quantile, so that it and the one before are read together."""


class Tail:
    """Quantiles of durations over the last minute and up to two before it. O(log bounds) to add, O(bounds) to read."""

    __slots__ = ("_before", "_counts", "_since")

    def __init__(self, now: float) -> None:
        self._counts = [0] * (len(_BOUNDS_S) + 1)
        self._before = self._counts
        self._since = now

    def add(self, seconds: float, now: float) -> None:
        if now - self._since >= _TURN_S:
            self._turn(now)
        self._counts[bisect_left(_BOUNDS_S, seconds)] += 1

    def quantile(self, level: float, now: float) -> float | None:
        """The bound that this share of them does not exceed; None: there were none."""
        if now - self._since >= _TURN_S:
            self._turn(now)
        counts = self._counts
        if self._before is not counts:
            counts = [one + other for one, other in zip(counts, self._before, strict=True)]
        left = level * sum(counts)
        if not left:
            return None
        for bound, count in zip(_BOUNDS_S, counts, strict=False):
            left -= count
            if left <= 0.0:
                return bound
        return _BOUNDS_S[-1]

    def _turn(self, now: float) -> None:
        fresh = [0] * (len(_BOUNDS_S) + 1)
        self._before = self._counts if now - self._since < 2.0 * _TURN_S else fresh
        self._counts = fresh if self._before is not fresh else [0] * (len(_BOUNDS_S) + 1)
        self._since = now


class Judge:
    """Holds what becomes of requests against an objective, once per request and not per token."""

    __slots__ = ("first_token", "inter_token", "latency", "missed_total", "objective")

    def __init__(self, objective: Objective, now: float) -> None:
        self.objective = objective
        self.missed_total = 0
        """Answers that were late or slow, or failed. Refusals are counted where they are made."""
        self.first_token = Tail(now)
        self.inter_token = Tail(now)
        self.latency = Tail(now)

    def answered(self, first_s: float, gap_s: float, total_s: float, tokens: float, now: float) -> None:
        """A whole answer. `first_s` below 0: its first token could not be seen, so that the whole of it is held
        against the time that its tokens may take together. `gap_s` below 0: it had no gaps."""
        objective = self.objective
        self.latency.add(total_s, now)
        if first_s < 0.0:
            if total_s > objective.first_token_s + objective.inter_token_s * tokens:
                self.missed_total += 1
            return
        self.first_token.add(first_s, now)
        late = first_s > objective.first_token_s
        if gap_s >= 0.0:
            self.inter_token.add(gap_s, now)
            late = late or gap_s > objective.inter_token_s
        if late:
            self.missed_total += 1

    def unanswered(self, waited_s: float, seen: bool, faulty: bool) -> None:
        """A request without a whole answer: `faulty`, not the client's doing. A client that leaves is a miss if it had
        waited in vain for longer than it should have had to."""
        if faulty or (not seen and waited_s > self.objective.first_token_s):
            self.missed_total += 1


class ModelSignals:
    """Counters of one model. Totals never fall, so that a reader may take differences over any interval."""

    __slots__ = (
        "in_flight", "judge", "offered", "offered_total", "output_tokens_total", "prompt_tokens_total",
        "rejected_total", "served", "served_total", "started_at", "waiting_output_tokens", "waiting_prompt_tokens",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.started_at = now
        self.offered_total = 0
        self.rejected_total = 0
        self.served_total = 0
        self.prompt_tokens_total = 0.0
        self.output_tokens_total = 0.0
        self.in_flight = 0
        self.waiting_prompt_tokens = 0.0
        self.waiting_output_tokens = 0.0
        """Predicted tokens of requests in the queue."""
        self.offered = Window()
        """Prompt tokens of offered requests."""
        self.served = Window()
        """Output tokens of answers."""
        self.judge: Judge | None = None
        """None: nobody has said what may be expected, and nothing is counted."""

    def expect(self, objective: Objective | None, now: float) -> None:
        """Hold answers against this from now on. What was counted stays."""
        if objective is None:
            self.judge = None
        elif self.judge is None:
            self.judge = Judge(objective, now)
        else:
            self.judge.objective = objective

    def offer(self, prompt_tokens: float, now: float) -> None:
        self.offered_total += 1
        self.prompt_tokens_total += prompt_tokens
        self.offered.add(prompt_tokens, now)

    def wait(self, prompt_tokens: float, output_tokens: float) -> None:
        """A request goes into the queue."""
        self.waiting_prompt_tokens += prompt_tokens
        self.waiting_output_tokens += output_tokens

    def leave_queue(self, prompt_tokens: float, output_tokens: float, left: int) -> None:
        """It has left the queue, in which `left` requests remain; none leave no rounding behind."""
        if left:
            self.waiting_prompt_tokens = max(0.0, self.waiting_prompt_tokens - prompt_tokens)
            self.waiting_output_tokens = max(0.0, self.waiting_output_tokens - output_tokens)
        else:
            self.waiting_prompt_tokens = self.waiting_output_tokens = 0.0

    def serve(self, output_tokens: float, now: float) -> None:
        self.served_total += 1
        self.output_tokens_total += output_tokens
        self.served.add(output_tokens, now)

    def span_s(self, now: float) -> float:
        """Seconds that the windows cover: a minute, or less since the first request, at least one."""
        return max(1.0, min(float(_BINS), now - self.started_at))
