"""How often the API server may be asked. Pure: time and chance are handed in.

While all is well a token bucket bounds the rate. From an error until things have been calm for a while, calls are at
least a second apart, whoever makes them, and further apart the longer the trouble lasts: a controller must not be part
of an outage. Jitter keeps many instances from asking at the same instant.
"""

from __future__ import annotations

import random

RATE_PER_S = 5.0
"""Calls per second for long, client-go's default QPS."""
BURST = 10
"""Calls at once after a quiet time, client-go's default burst."""
SPACING_S = 1.0
"""Least time between two calls in trouble: at most one a second in any error."""
CALM_S = 10.0
"""When calls have gone well for this long, the trouble is over. One success does not say so: lists may work where
watches fail, and the two together would be a loop."""
LONGEST_S = 30.0
"""Most time between two tries, so that the end of an outage is noticed within half a minute."""
JITTER_RATIO = 0.5


class Pace:
    """Of one caller, or of several that share it."""

    def __init__(
        self, rng: random.Random, *, rate_per_s: float = RATE_PER_S, burst: int = BURST, spacing_s: float = SPACING_S,
        longest_s: float = LONGEST_S,
    ) -> None:  # fmt: skip
        self._rng = rng
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._spacing_s = spacing_s
        self._longest_s = longest_s
        self._tokens = float(burst)
        self._filled_at: float | None = None
        self._failures = 0
        """Of the trouble that lasts; 0: all is well."""
        self._well_since: float | None = None
        """First success since the last failure."""
        self._failed_until = 0.0
        """End of the wait after the last failure that was counted."""
        self._not_before = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until `take` would let a call go now."""
        self._fill(now)
        wait_s = max(0.0, (1.0 - self._tokens) / self._rate_per_s)
        return max(wait_s, self._not_before - now)

    def take(self, now: float) -> float:
        """Take the next place. Returns the seconds to wait before the call."""
        wait_s = self.wait_s(now)
        self._tokens -= 1.0
        at = now + wait_s
        if self._well_since is not None and at - self._well_since >= CALM_S:
            self._failures, self._well_since = 0, None
        if self._failures:
            self._not_before = at + self._spacing_s
        return wait_s

    def succeeded(self, now: float) -> None:
        """A call was answered as it should be."""
        if self._failures:
            if self._well_since is None:
                self._well_since = now
            # Counted from the answer: what took long to get there would arrive close to its successor.
            self._not_before = max(self._not_before, now + self._spacing_s)

    def failed(self, now: float, *, growing: bool, retry_after_s: float | None = None) -> None:
        """A call failed. `growing`: the server is in trouble, so each failure in a row doubles the wait; otherwise the
        answer was about that one call alone (404, 409), and a second will do."""
        # One that fails before the wait after another is over had begun before it: the same trouble, met twice.
        is_news = now >= self._failed_until
        self._failures = self._failures + 1 if growing and is_news else max(self._failures, 1)
        self._well_since = None
        steps = min(self._failures - 1, 10) if growing else 0
        wait_s = min(self._longest_s, self._spacing_s * 2.0**steps) * (1.0 + JITTER_RATIO * self._rng.random())
        if is_news:
            self._failed_until = now + wait_s
        self._not_before = max(self._not_before, now + max(wait_s, retry_after_s or 0.0))

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate_per_s)
        self._filled_at = now
