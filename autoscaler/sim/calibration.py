"""What the pool model takes from the exact engine: how late requests are by how full the pool is, and the capacity of a
replica under an objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from autoscaler.sim.exact import ExactEngine
from autoscaler.sim.flow import Flow, draw
from autoscaler.sim.policy import Reading
from autoscaler.sim.pool_model import GRID, PoolModel, plain
from autoscaler.sim.replica_model import ReplicaModel
from autoscaler.sim.roster import Roster
from autoscaler.sim.score import UNSCORED_S
from autoscaler.sim.series import Floats
from autoscaler.sim.start_up import SCENARIOS
from autoscaler.sim.workload import Lengths, Load

_REPLICAS = 10
_WINDOW_S = 30
_RAMP_S = 7200
"""Slow enough that long requests keep up with the load, and up and down again, so that both ways count."""
_LOW, _HIGH = 0.55, 1.0
"""Load at both ends of the ramp, as a share of what full batches complete."""
_STEADY_S = 4 * 3600


class Fixed:
    """A policy that never changes anything."""

    name = "fixed"
    tick_s = 15.0
    stops = False

    def __init__(self, count: int) -> None:
        self.start = count

    def tick(self, reading: Reading, roster: Roster) -> None:
        """Stay."""


def most_per_s(model: PoolModel) -> float:
    """Requests a second that a replica with full batches completes, from step times and means."""
    replica = model.replica
    lengths = model.lengths
    output = model.output_tokens
    # Requests in proportion to their length are what runs: the batch that fits is the memory over their mean.
    held = float(np.average(lengths.prompt_tokens + lengths.output_tokens, weights=lengths.output_tokens))
    batch = min(float(replica.max_running), model.kv_room * replica.kv_tokens / max(held, model.request_tokens))
    step_s = (replica.step_s + replica.step_s_per_running * batch) * replica.slow_factor
    return batch / (output * step_s + replica.prefill_s_per_token * model.prompt_tokens * batch)


def calibrate(
    model: ReplicaModel,
    lengths: Lengths,
    *,
    seed: int = 1,
    first_token_s: float = 2.0,
    inter_token_s: float = 0.1,
    progress: Callable[[int], None] | None = None,
) -> PoolModel:
    """Play the same ramp in both engines, and read off which fullness went with which share of late requests."""
    base = plain(model, lengths, seed=seed)
    base = replace(base, late_wait_s=max(0.1, first_token_s - 0.4))
    top = most_per_s(base) * _REPLICAS
    half = np.linspace(_LOW, _HIGH, _RAMP_S // 2)
    warm = np.full(int(UNSCORED_S), _LOW)
    intensity: Floats = np.concatenate((warm, half, half[::-1])) * top
    arrivals = np.random.default_rng(seed).poisson(intensity)
    load = Load(arrivals, 0, 0.0, intensity, float(intensity.max()))
    engine = ExactEngine(
        load, lengths, Fixed(_REPLICAS), model, SCENARIOS["warm"], seed=seed, max_replicas=_REPLICAS,
        first_token_s=first_token_s, inter_token_s=inter_token_s, window_s=_WINDOW_S,
    )  # fmt: skip
    engine.play(progress)
    flow = Flow(base)
    flow.fill(_REPLICAS, float(intensity[0]))
    sums: dict[int, list[float]] = {}
    for second, drawn in enumerate(draw(base, arrivals, np.random.default_rng(seed + 1))):
        flow.second(drawn, _REPLICAS)
        window = sums.setdefault(second // _WINDOW_S, [0.0, 0.0])
        window[0] += flow.fullness
        window[1] += flow.waiting
    fullness, shares, delays, weights = [], [], [], []
    for index, (offered, missed, delay_s) in engine.tally.windows.items():
        if offered and sums[index][1] < 1.0:
            fullness.append(sums[index][0] / _WINDOW_S)
            shares.append(missed / offered)
            delays.append(delay_s / offered)
            weights.append(offered)
    return replace(base, late=_isotonic(fullness, shares, weights), delay_s=_isotonic(fullness, delays, weights))


def _isotonic(xs: list[float], ys: list[float], weights: list[float]) -> tuple[float, ...]:
    """The non-decreasing table nearest to the points in least squares: pool adjacent violators (Ayer et al. 1955)."""
    blocks: list[list[float]] = []
    for x, y, weight in sorted(zip(xs, ys, weights, strict=True)):
        blocks.append([y * weight, weight, x * weight])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    middles = [block[2] / block[1] for block in blocks]
    means = [block[0] / block[1] for block in blocks]
    if middles[0] > 0.0:
        middles, means = [0.0, *middles], [0.0, *means]
    return tuple(float(value) for value in np.interp(np.linspace(0.0, 1.0, GRID + 1), middles, means))


def capacity(model: PoolModel, replicas: int, misses: float, *, seed: int = 1) -> tuple[float, float]:
    """(requests a second and replica, running requests on it) at which `replicas` in a steady state have this share of
    misses, by bisection in the pool model."""
    low, high = 0.3 * most_per_s(model), 1.3 * most_per_s(model)
    running = 0.0
    for _ in range(12):
        rate = 0.5 * (low + high)
        share, running = _steady(model, replicas, rate, seed)
        if share > misses:
            high = rate
        else:
            low = rate
    return low, running


def _steady(model: PoolModel, replicas: int, rate: float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    came = rng.poisson(rate * replicas, _STEADY_S)
    flow = Flow(model)
    flow.fill(replicas, rate * replicas)
    late = running = 0.0
    for drawn in draw(model, came, rng):
        late += flow.second(drawn, replicas)[0]
        running += flow.total
    return late / max(int(came.sum()), 1), running / _STEADY_S / replicas
