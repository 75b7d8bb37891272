"""Whether a failed attempt is tried again elsewhere, within a budget counted in prompt tokens."""

from __future__ import annotations

from math import exp

from lb.effects import Outcome
from lb.settings import RetrySettings

_MINUTE_S = 60.0

UNSENT = frozenset({Outcome.CONNECT_FAILED, Outcome.CONNECT_TIMEOUT})
"""Nothing reached the replica, so nothing can have been executed: tried again at no cost."""

_ALWAYS = UNSENT | {Outcome.RESET, Outcome.LOADING, Outcome.OVERLOADED, Outcome.TERMINATING, Outcome.HUNG}

_GATEWAY_STATUS = frozenset({502, 503, 504})
"""Said by a proxy in front of the runtime, or by one that is leaving; the request itself is not to blame."""
SUSPECT_ERRORS = 2
"""Server errors in a row after which a replica, and not its clients, is the likely cause: a vLLM that is told to stop
answers every new chat with 500 while its health page says 200."""


def retriable(outcome: Outcome, status: int, server_errors: int, settings: RetrySettings) -> bool:
    """Whether this end of an attempt is of a kind that another replica may do better.

    `server_errors`: the replica's answers with 5xx in a row, this one included. A lone 500 is passed on, because some
    runtimes answer a client's mistake with it.
    """
    if outcome in _ALWAYS:
        return True
    if outcome is not Outcome.SERVER_ERROR:
        return False
    return settings.on_server_error or status in _GATEWAY_STATUS or server_errors > SUSPECT_ERRORS


class RetryBudget:
    """A token bucket of prompt tokens.

    Fills with `budget_ratio` of the prompt tokens offered and with `budget_min_tokens` a minute, and holds at most
    what a minute brings. `offered` is added to on the hot path and settled when the budget is asked.
    """

    __slots__ = ("_at", "_level", "_minute", "_settings", "offered")

    def __init__(self, settings: RetrySettings, now: float) -> None:
        self._settings = settings
        self._at = now
        self._level = float(settings.budget_min_tokens)
        self._minute = 0.0
        self.offered = 0.0
        """Prompt tokens offered since the last look."""

    def reconfigure(self, settings: RetrySettings) -> None:
        self._settings = settings

    def spend(self, prompt_tokens: float, now: float) -> bool:
        """Take the tokens of one retry; False: the budget does not allow it."""
        if self.level(now) < prompt_tokens:
            return False
        self._level -= prompt_tokens
        return True

    def level(self, now: float) -> float:
        """Prompt tokens that may be sent again now."""
        settings = self._settings
        passed = max(0.0, now - self._at)
        self._minute = self._minute * exp(-passed / _MINUTE_S) + self.offered
        self._level += settings.budget_ratio * self.offered + settings.budget_min_tokens * passed / _MINUTE_S
        self._level = min(self._level, settings.budget_min_tokens + settings.budget_ratio * self._minute)
        self._at = now
        self.offered = 0.0
        return self._level
