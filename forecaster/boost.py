"""Gradient boosting: where the best weights of the rules depend on the situation. The one door to lightgbm."""

from __future__ import annotations

import lightgbm
import numpy as np

from forecaster.frame import Frame
from forecaster.series import Floats, Ints
from forecaster.smoothing import smoothed

_ROUNDS = 80
_PARAMETERS: dict[str, object] = {
    "objective": "huber",
    "alpha": 1.5,
    # Small trees on few rows, heavily regularised: two weeks of ten-minute bins are 2,000 rows.
    "num_leaves": 8,
    "learning_rate": 0.06,
    "min_data_in_leaf": 20,
    "lambda_l2": 5.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
    # One thread, and one order of summation: the same input gives the same forecast.
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
_BACK = (1, 2, 3, 6)
_BURN = 120


def situation(frame: Frame, low: int, high: int) -> Floats:
    """What is known of each origin in [low, high) beside the rules: level, the day's mean, unrest, latest changes."""
    first = max(0, low - _BURN)
    z = frame.z[first:high]
    skip = low - first
    unrest = np.abs(np.diff(z, prepend=z[:1]))
    origins = np.arange(low, high)
    last = frame.at(origins)
    columns = [last, frame.mean(origins - frame.day + 1, origins + 1)]
    columns += [smoothed(unrest, alpha)[skip:] for alpha in (0.3, 0.05)]
    columns += [last - frame.at(origins - back) for back in _BACK]
    return np.stack(columns, 1)


class Boost:
    """One fitted ensemble of trees, for one horizon."""

    def __init__(self, booster: lightgbm.Booster, scale: float) -> None:
        self._booster = booster
        self._scale = scale

    @classmethod
    def fit(cls, points: Floats, situation: Floats, phase: Ints, truth: Floats, seed: int) -> Boost:
        """Learn how far the truth is from the rules' mean. Arrays [origin, ...]; `phase`: bin of the target's day."""
        base = points.mean(1)
        residual = truth - base
        scale = 1.4826 * float(np.median(np.abs(residual))) + 1e-9
        data = lightgbm.Dataset(_table(points, base, situation, phase), residual / scale)
        return cls(lightgbm.train(_PARAMETERS | {"seed": seed}, data, _ROUNDS), scale)

    def predict(self, points: Floats, situation: Floats, phase: Ints) -> Floats:
        """Forecast of z for each origin."""
        base: Floats = points.mean(1)
        table = _table(points, base, situation, phase)
        return base + self._scale * np.asarray(self._booster.predict(table, num_threads=1))


def _table(points: Floats, base: Floats, situation: Floats, phase: Ints) -> Floats:
    relative = (base - situation[:, 0])[:, None]
    return np.concatenate([points - base[:, None], situation, relative, phase[:, None].astype(np.float64)], 1)
