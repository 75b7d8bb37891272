"""Ways to expect demand, by name. `decide.contest` chooses among them by what each would have cost."""

from __future__ import annotations

from collections.abc import Callable

from autoscaler.decide.predictor import Predictor
from autoscaler.decide.predictors.last_value import LastValue
from autoscaler.decide.predictors.momentum import Momentum

PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "last_value": LastValue,
    "momentum": Momentum,
}
"""Those that need nothing but the demand itself; the forecast joins them from outside."""
