"""A small positive linear model, fitted one observation at a time, that an outlier cannot wreck."""

from __future__ import annotations

from math import exp, log, sqrt

_COMMON_VARIANCE = 2.25
"""Prior variance (log) of the factor that all terms share, a faster or slower machine: 4.5 times either way at a sigma.
The first observations of any kind settle it."""
_OWN_VARIANCE = 0.5
"""Prior variance (log) of each term's own factor, the shape of the curve; it takes some dozens of observations."""
_NOISE_VARIANCE = 0.04
"""Of one observation (log): timings under load scatter by 20 %."""
_COMMON_DRIFT = 0.0005
_OWN_DRIFT = 0.00005
"""Variance gained with each observation. Against the noise above, the common factor averages over about
sqrt(0.04 / 0.0005) = 9 observations and the shape over some 30."""
_VARIANCE_CAP = _COMMON_VARIANCE + _OWN_VARIANCE
_LOG_BOUND = log(100.0)
"""Each factor stays within 100 of its prior: from the fastest accelerator to a model on one CPU core."""
_CLIP_MIN, _CLIP_MAX = 0.2, 1.0
"""Furthest (log) that a residual counts: three times the usual one, within these bounds. A stall of a minute is taken
for a request 2.7 times slower than predicted at most; a replica that is slower for good is followed all the same, as
its residuals soon are the usual ones."""
_SPREAD_STEP = 0.1
_ERROR_STEP = 0.03
_ERROR_MAX = 10.0
"""One absurd observation must not hide the error of the ordinary ones."""


class RobustFit:
    """y = sum of t_i * x_i for up to four terms; x_i is what the prior coefficient says, t_i > 0 a learned factor.

    An extended Kalman filter over log t_i, which walk at random: recursive least squares with bounded forgetting, on
    residuals log(y / predicted) that are clipped (Huber). Working in logs keeps factors positive and makes noise that
    grows with the time even. The prior covariance lets all factors move together first, so a machine 2.5 times slower
    is known after a few observations, and terms that were never seen at work keep their prior ratio to the others.
    """

    __slots__ = ("_cov", "_spread", "error", "observations", "t0", "t1", "t2", "t3")

    def __init__(self) -> None:
        self.t0 = self.t1 = self.t2 = self.t3 = 1.0
        one, both = _COMMON_VARIANCE + _OWN_VARIANCE, _COMMON_VARIANCE
        self._cov = (one, both, both, both, one, both, both, one, both, one)
        """Upper triangle of the covariance, row by row."""
        self._spread = _CLIP_MAX / 3.0
        self.error = 0.0
        """Mean absolute error before each update, relative to the observation, over about the last 30."""
        self.observations = 0

    def learn(self, x0: float, x1: float, x2: float, x3: float, y: float, noise: float = 1.0) -> bool:
        """Take in one observation; `noise` scales its variance (1/n for a mean of n). False: it cannot be used."""
        h0, h1, h2, h3 = self.t0 * x0, self.t1 * x1, self.t2 * x2, self.t3 * x3
        predicted = h0 + h1 + h2 + h3
        if not (1e-9 < y < 1e6 and 1e-9 < predicted < 1e9):
            return False
        miss = abs(predicted - y) / y
        self.observations += 1
        step = _ERROR_STEP if self.observations > 33 else 1.0 / self.observations
        self.error += (min(_ERROR_MAX, miss) - self.error) * step
        residual = log(y / predicted)
        size = residual if residual >= 0.0 else -residual
        clip = 3.0 * self._spread
        clip = max(_CLIP_MIN, min(_CLIP_MAX, clip))
        self._spread += (min(_CLIP_MAX, size) - self._spread) * _SPREAD_STEP
        if size > clip:
            residual = clip if residual > 0.0 else -clip
        p00, p01, p02, p03, p11, p12, p13, p22, p23, p33 = self._cov
        scale = 1.0 / predicted
        h0, h1, h2, h3 = h0 * scale, h1 * scale, h2 * scale, h3 * scale
        g0 = p00 * h0 + p01 * h1 + p02 * h2 + p03 * h3
        g1 = p01 * h0 + p11 * h1 + p12 * h2 + p13 * h3
        g2 = p02 * h0 + p12 * h1 + p22 * h2 + p23 * h3
        g3 = p03 * h0 + p13 * h1 + p23 * h2 + p33 * h3
        inverse = 1.0 / (g0 * h0 + g1 * h1 + g2 * h2 + g3 * h3 + _NOISE_VARIANCE * noise)
        step = residual * inverse
        self.t0 = _bounded(self.t0 * exp(g0 * step))
        self.t1 = _bounded(self.t1 * exp(g1 * step))
        self.t2 = _bounded(self.t2 * exp(g2 * step))
        self.t3 = _bounded(self.t3 * exp(g3 * step))
        k0, k1, k2, k3 = g0 * inverse, g1 * inverse, g2 * inverse, g3 * inverse
        c, d = _COMMON_DRIFT, _COMMON_DRIFT + _OWN_DRIFT
        p00, p11, p22, p33 = p00 - k0 * g0 + d, p11 - k1 * g1 + d, p22 - k2 * g2 + d, p33 - k3 * g3 + d
        self._cov = (
            p00, p01 - k0 * g1 + c, p02 - k0 * g2 + c, p03 - k0 * g3 + c,
            p11, p12 - k1 * g2 + c, p13 - k1 * g3 + c,
            p22, p23 - k2 * g3 + c, p33,
        )  # fmt: skip
        if p00 > _VARIANCE_CAP or p11 > _VARIANCE_CAP or p22 > _VARIANCE_CAP or p33 > _VARIANCE_CAP:
            self._cap()
        return True

    def _cap(self) -> None:
        """Shrink what has grown past the prior's variance: a term not at work for a day is unknown, not wild."""
        p00, p01, p02, p03, p11, p12, p13, p22, p23, p33 = self._cov
        s0, s1, s2, s3 = (sqrt(min(1.0, _VARIANCE_CAP / p)) for p in (p00, p11, p22, p33))
        self._cov = (
            p00 * s0 * s0, p01 * s0 * s1, p02 * s0 * s2, p03 * s0 * s3,
            p11 * s1 * s1, p12 * s1 * s2, p13 * s1 * s3,
            p22 * s2 * s2, p23 * s2 * s3, p33 * s3 * s3,
        )  # fmt: skip


_LOW, _HIGH = exp(-_LOG_BOUND), exp(_LOG_BOUND)


def _bounded(factor: float) -> float:
    return max(_LOW, min(_HIGH, factor))
