"""Slow start: a replica that joins or returns is believed slow until it has shown that it is not.

Its share of full speed grows linearly over the warm-up time, which is learned from how long earlier replicas took to
answer as fast as predicted. Answers as fast as predicted end the ramp at once, and so does the sight of token counters
that went on counting where a warm replica's stood: it was out of reach, and no new process.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from lb.settings import HealthSettings

FLOOR_RATIO = 0.3
"""Speed credited at the beginning. With less, a new replica would get nothing while the others are merely busy, and
could not show that it is warm."""
STEADY_RATIO = 1.5
"""A first token within this multiple of its prediction is a warm one: predictions scatter by some 20 %."""
STEADY_COUNT = 3
_STEP = 0.3
"""Weight of the last replica's warm-up in the learned time: a new image or model shows after two or three."""


@dataclass(slots=True)
class Ramp:
    """The warm-up of one replica."""

    start: float
    duration_s: float
    tokens: float = inf
    """Token counters that it had when it was last warm; inf: it never was. A new process counts from 0 again."""
    steady: int = 0

    def ratio(self, now: float) -> float:
        """Share of full speed, `FLOOR_RATIO` to 1."""
        if self.duration_s <= 0.0:
            return 1.0
        return min(1.0, max(FLOOR_RATIO, (now - self.start) / self.duration_s))

    def observe(self, observed_s: float, predicted_s: float) -> bool:
        """A first token came after `observed_s`; True: warm."""
        if observed_s <= STEADY_RATIO * predicted_s:
            self.steady += 1
        else:
            self.steady = 0
        return self.steady >= STEADY_COUNT

    def never_left(self, tokens: float) -> bool:
        """Whether counters that now stand at `tokens` show that this is the process that was warm before."""
        return tokens >= self.tokens


class WarmUpTime:
    """How long replicas take to warm up, learned over the fleet."""

    __slots__ = ("_learned_s", "_settings")

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self._learned_s: float | None = None

    def reconfigure(self, settings: HealthSettings) -> None:
        self._settings = settings

    @property
    def duration_s(self) -> float:
        """Never longer than the setting, so that a wrong lesson costs little."""
        longest = self._settings.warmup_s
        return longest if self._learned_s is None else min(longest, self._learned_s)

    def learn(self, took_s: float) -> None:
        """A replica was warm `took_s` after it joined."""
        if self._learned_s is None:
            self._learned_s = took_s
        else:
            self._learned_s += (took_s - self._learned_s) * _STEP
