"""Level shifts: a CUSUM (Page 1954) of one-step errors in both directions."""

from __future__ import annotations

_SLACK = 1.5
"""Typical errors that are no sign of anything."""
_ALARM = 12.0
"""Summed excess that is: four errors in a row of five typical ones or more. Three are not."""
_MOST = 5.0
"""One error counts no more than this: a single spike is no shift."""


class Drift:
    """Watches errors at the shortest horizon, each divided by what is typical."""

    def __init__(self) -> None:
        self._up = self._down = 0.0

    def observe(self, error: float) -> str | None:
        """'up' or 'down' when the level has left what the model believes; then it starts anew."""
        bounded = min(max(error, -_MOST), _MOST)
        self._up = max(0.0, self._up + bounded - _SLACK)
        self._down = max(0.0, self._down - bounded - _SLACK)
        if self._up > _ALARM or self._down > _ALARM:
            way = "up" if self._up > self._down else "down"
            self._up = self._down = 0.0
            return way
        return None
