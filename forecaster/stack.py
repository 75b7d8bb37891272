"""Stacking: how the rules are to be weighed, learned from how they did.

Ridge regression of the truth on the rules, shrunk towards their plain mean (a combination that is hard to beat: Clemen
1989), with old origins fading and large errors bounded (Huber 1964).
"""

from __future__ import annotations

import numpy as np

from forecaster.series import Floats

_RIDGE = 0.003
"""Of the mean variance of the rules around their mean: enough to keep rules that say nearly the same apart."""
_HUBER = 1.5
"""Errors beyond this many robust standard deviations count linearly: Huber's own choice."""
_ROUNDS = 3
"""Rounds of reweighting: the first ends the pull of spikes, the others refine the scale that errors are judged by."""


def weigh(points: Floats, truth: Floats, age_days: Floats, half_life_days: float) -> Floats:
    """Weights of the rules' distances from their mean, for `combine`. `points`: [origin, rule]; `truth`: [origin]."""
    base = points.mean(1)
    spread = points - base[:, None]
    residual = truth - base
    fade = 0.5 ** (age_days / half_life_days)
    count = points.shape[1]
    weights = np.zeros(count)
    for _ in range(_ROUNDS):
        error = np.abs(residual - spread @ weights)
        scale = 1.4826 * float(np.median(error)) + 1e-9
        bounded = fade * np.minimum(1.0, _HUBER / (error / scale + 1e-9))
        moment = (spread * bounded[:, None]).T
        gram = moment @ spread
        ridge = _RIDGE * float(np.trace(gram)) / count + 1e-12
        weights = np.linalg.solve(gram + ridge * np.eye(count), moment @ residual)
    return weights


def combine(points: Floats, weights: Floats) -> Floats:
    """The weighed forecast of each origin."""
    base: Floats = points.mean(1)
    return base + (points - base[:, None]) @ weights
