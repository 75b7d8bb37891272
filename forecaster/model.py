"""A rule that continues a series: the contract of the models that the ensemble is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from forecaster.frame import Frame
from forecaster.series import Floats


class Model(Protocol):
    """A family of rules. Stateless: what it says of an origin follows from the frame up to that origin alone."""

    @property
    def names(self) -> tuple[str, ...]:
        """One per rule."""
        ...

    def points(self, frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
        """Forecasts of z made at each origin in [low, high), `lags` bins ahead: array [origin, lag, rule].

        An origin is the last bin that may be read. With too little history a rule says the last value.
        """
        ...
