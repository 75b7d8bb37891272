"""How fast waiting requests of a pool find room, as measured."""

from __future__ import annotations

from math import exp

_MEMORY_S = 30.0
"""Releases fade with this time constant: some answers' worth of time, so that the rate follows a lost replica."""


class ReleaseRate:
    """Releases per second with exponential forgetting, corrected for a short history."""

    __slots__ = ("_at", "_count", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._at = now
        self._count = 0.0

    def add(self, now: float) -> None:
        self._count = self._count * exp(-max(0.0, now - self._at) / _MEMORY_S) + 1.0
        self._at = now

    def per_s(self, now: float) -> float:
        """0.0 when nothing was released yet."""
        history_s = max(now - self._since, 1.0)
        span_s = _MEMORY_S * (1.0 - exp(-history_s / _MEMORY_S))
        return self._count * exp(-max(0.0, now - self._at) / _MEMORY_S) / span_s
