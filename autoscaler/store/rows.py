"""The values that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

STORE_FILE = "tidegate.db"
"""Name of the file in `store.directory`."""
BIN_S = 60
"""Width of a bin of demand: start-ups take minutes, so that nothing finer is worth keeping for weeks."""


class StoreError(Exception):
    """The store cannot be used; the text names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Offered demand for one model in one minute, which was observed from its begin to its end.

    A minute that was not is no bin: a gap is a gap and not zero.
    """

    model: str
    start_s: int
    """Epoch second, a multiple of BIN_S."""
    requests: float
    """Offered: served, queued and refused alike."""
    prompt_tokens: float
    output_tokens: float
    """Of answers that ended in it."""

    def valid(self) -> bool:
        """On the grid, and every number finite and not negative."""
        numbers = (self.requests, self.prompt_tokens, self.output_tokens)
        return self.start_s % BIN_S == 0 and all(isfinite(one) and one >= 0.0 for one in numbers)


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """One decision of the controller on one pool."""

    pool: str
    at: float
    """Epoch seconds."""
    sentence: str
    record: Mapping[str, object]
    """`Decision.record()` and whatever the loop adds."""
    notable: bool = True
    """It changed something, or its reason differs from the one before; the others are kept for a shorter time."""
