"""The load on the plant: an intensity, the arrivals drawn from it, and the lengths of requests."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

from autoscaler.sim.series import Floats, Trace
from forecaster.series import Series

LONGEST_PROMPT = 8192
"""Prompts are cut here, so that every policy meets a plant that can serve them."""
COARSE_S = 300.0
"""Bins of this length or more hide burstiness, which is put back as noise."""
NOISE_SD = 0.10
NOISE_S = 120.0
_PEAK_S = 300


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens of the requests to draw from."""

    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]

    @staticmethod
    def of(trace: Trace) -> Lengths:
        return Lengths(np.minimum(trace.prompt_tokens, LONGEST_PROMPT), trace.output_tokens)


@dataclass(frozen=True, slots=True)
class Load:
    """Demand second by second. What precedes `start` is history, known to every policy."""

    arrivals: NDArray[np.int64]
    """Requests that arrive in each second."""
    start: int
    """First second that is played."""
    wall: float
    """Epoch seconds of second 0."""
    intensity: Floats
    """Requests per second from which the arrivals are drawn; only the oracles may look ahead in it."""
    peak_per_s: float
    """Its highest five-minute mean."""
    scale: float = 1.0
    """Requests per second for one unit of the series that it was made from."""


def intensity_of(series: Series) -> Floats:
    """Requests per second in each second, in the series' own unit: linear between the middles of its bins."""
    values = series.values
    known = ~np.isnan(values)
    middles = (np.arange(len(values)) + 0.5) * series.step_s
    seconds = np.arange(len(values) * series.step_s) + 0.5
    intensity: Floats = np.interp(seconds, middles[known], values[known])
    return intensity


def peak_of(intensity: Floats) -> float:
    """Highest five-minute mean."""
    if len(intensity) <= _PEAK_S:
        return float(intensity.mean())
    total = np.concatenate(([0.0], np.cumsum(intensity)))
    return float(np.max(total[_PEAK_S:] - total[:-_PEAK_S]) / _PEAK_S)


def noise(seconds: int, rng: np.random.Generator) -> Floats:
    """Lognormal first-order autoregressive noise of mean one."""
    keep = exp(-1.0 / NOISE_S)
    steps = rng.standard_normal(seconds) * NOISE_SD * sqrt(1.0 - keep * keep)
    steps[0] = rng.standard_normal() * NOISE_SD
    values = steps.tolist()
    state = 0.0
    for index, step in enumerate(values):
        state = keep * state + step
        values[index] = state
    noisy: Floats = np.exp(np.array(values) - 0.5 * NOISE_SD**2)
    return noisy


def load_of(series: Series, *, days: float | None, peak_per_s: float | None, seed: int) -> Load:
    """Draw the load. `peak_per_s` scales the highest five-minute mean to it; None: the series is requests per second.

    `days`: the last so many are played; None: all.
    """
    rng = np.random.default_rng(seed)
    intensity = intensity_of(series)
    scale = 1.0
    if peak_per_s is not None:
        scale = peak_per_s / max(peak_of(intensity), 1e-12)
        intensity = intensity * scale
    peak = peak_of(intensity)
    if series.step_s >= COARSE_S:
        intensity = intensity * noise(len(intensity), rng)
    return Load(rng.poisson(intensity), _start(len(intensity), days), float(series.start_s), intensity, peak, scale)


def _start(seconds: int, days: float | None) -> int:
    """First second that is played."""
    return 0 if days is None else max(0, seconds - int(days * 86_400))


def load_of_trace(trace: Trace, *, days: float | None, peak_per_s: float | None, seed: int) -> Load:
    """A trace as it was, superposed or thinned to a peak: each request becomes a Poisson number of copies that arrive
    up to 30 s apart. Time is never stretched."""
    rng = np.random.default_rng(seed)
    seconds = int(trace.arrivals[-1]) + 1
    counts = np.bincount(trace.arrivals.astype(int), minlength=seconds)[:seconds]
    if peak_per_s is not None:
        factor = peak_per_s / max(peak_of(counts.astype(float)), 1e-12)
        copies = rng.poisson(factor, len(trace.arrivals))
        jitter = rng.uniform(-15.0, 15.0, int(copies.sum()))
        moved = np.clip(np.repeat(trace.arrivals, copies) + jitter, 0, seconds - 1).astype(int)
        counts = np.bincount(moved, minlength=seconds)[:seconds]
    width = min(60, seconds)
    smooth = np.convolve(counts, np.ones(width) / width, "same")
    return Load(counts, _start(seconds, days), 0.0, smooth, peak_of(smooth))
