"""Offered demand per model, counted where it arrives: what the forecaster and the autoscaler live on."""

from __future__ import annotations

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


class ModelSignals:
    """Counters of one model. Totals never fall, so that a reader may take differences over any interval."""

    __slots__ = (
        "in_flight", "offered", "offered_total", "output_tokens_total", "prompt_tokens_total", "rejected_total",
        "served", "started_at", "waiting_output_tokens", "waiting_prompt_tokens",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.started_at = now
        self.offered_total = 0
        self.rejected_total = 0
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
        self.output_tokens_total += output_tokens
        self.served.add(output_tokens, now)

    def span_s(self, now: float) -> float:
        """Seconds that the windows cover: a minute, or less since the first request, at least one."""
        return max(1.0, min(float(_BINS), now - self.started_at))
