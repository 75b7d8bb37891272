"""Forecasts ahead from autoregressive coefficients, at many origins at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from forecaster.frame import Frame
from forecaster.series import Floats, Ints

_FAR = 3.0
"""A forecast may leave the range of what it was fitted on by so many of its standard deviations: coefficients of an
explosive fit are not followed to infinity."""


def ahead(
    frame: Frame,
    lags: Sequence[int],
    origins: Ints,
    fitted: Floats,
    coefficients: Floats,
    course: Callable[[Ints], Floats],
) -> Floats:
    """z at each origin + lag: [origin, lag].

    z[t] = course(t) + sum over i of coefficients[i] * z[t - 1 - i]; `course` gives the deterministic part of bins.
    `fitted` is the z that all this was fitted on.
    """
    order = len(coefficients)
    # Newest first, as the coefficients are.
    past = frame.at(origins[:, None] - np.arange(order))
    margin = _FAR * float(fitted.std()) + 1e-9
    floor, ceiling = float(fitted.min()) - margin, float(fitted.max()) + margin
    out = np.empty((len(origins), len(lags)))
    for step in range(1, max(lags) + 1):
        value = np.clip(course(origins + step) + past @ coefficients, floor, ceiling)
        past = np.concatenate([value[:, None], past[:, :-1]], 1)
        for j, lag in enumerate(lags):
            if lag == step:
                out[:, j] = value
    return out
