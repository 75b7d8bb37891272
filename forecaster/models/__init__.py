"""Every model of the ensemble. Adding one: a file, a line here, a test, a row in the README."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecaster.frame import Frame
from forecaster.model import Model
from forecaster.models.level import Level
from forecaster.models.profile import Profile
from forecaster.models.seasonal import Seasonal
from forecaster.models.trend import Trend
from forecaster.series import Floats

MODELS: dict[str, Model] = {"level": Level(), "trend": Trend(), "profile": Profile(), "seasonal": Seasonal()}

RULES: tuple[str, ...] = tuple(name for model in MODELS.values() for name in model.names)
"""Names of the columns of `points`."""


def points(frame: Frame, lags: Sequence[int], low: int, high: int) -> Floats:
    """Forecasts of z by every rule: array [origin in [low, high), lag, rule]."""
    return np.concatenate([model.points(frame, lags, low, high) for model in MODELS.values()], 2)
