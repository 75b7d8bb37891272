"""The gate: whether a forecast may act.

It may while, over the recent past, acting on it would have cost less than acting on the last value, both taken at the
quantile that prices make the best (newsvendor: under / (under + over); pinball loss at it is the cost of acting on it,
up to a factor). The last value gets the same calibration, so the comparison is fair.
"""

from __future__ import annotations

from dataclasses import dataclass

_SCORED = 24
"""Forecasts that must have come true first: two hours of five-minute bins."""
_CLOSE, _OPEN = 1.03, 0.99
"""Cost against the last value's at which it closes and opens; between them nothing changes: it must not flutter."""


@dataclass(frozen=True, slots=True)
class Change:
    """The gate moved."""

    trusted: bool
    reason: str


class Gate:
    """Closed at first: trust comes after proof."""

    def __init__(self) -> None:
        self.trusted = False
        self.reason = "nothing has come true yet"

    def judge(self, cost: float, last_value_cost: float, scored: int) -> Change | None:
        """Recent mean costs of acting on the forecast and on the last value; `scored`: forecasts that came true."""
        before = self.trusted
        if scored < _SCORED or not last_value_cost >= 0.0 or not cost >= 0.0:
            self.trusted = False
            self.reason = f"{scored} forecasts have come true, {_SCORED} are needed"
        else:
            ratio = cost / last_value_cost if last_value_cost > 0 else (1.0 if cost == 0 else float("inf"))
            self.trusted = ratio < (_CLOSE if before else _OPEN) or (cost == 0 and before)
            than = f"{ratio:.2f} times the cost of acting on the last value, over the last day"
            self.reason = f"acting on it cost {than}"
        return Change(self.trusted, self.reason) if self.trusted != before else None
