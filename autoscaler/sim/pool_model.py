"""A pool of replicas as a few flows: what the fast engine steps through, second by second.

State is the number of running requests by length class, and of those that wait. A replica with b of them makes a step
in `step + per_running x b` seconds, longer by the share of time that prompts take; a request of class i ends
after `output_i` steps. Waiting ones are admitted while slots and KV memory have room, as in the exact model. Classes
are needed because lengths have a heavy tail: most of what runs is long, most of what arrives is short.

Chance that a request is late although the pool as a whole has room comes from the exact engine, as a function of how
full the pool is (`autoscaler.sim.calibration`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from autoscaler.sim.replica_model import ReplicaModel
from autoscaler.sim.series import Floats
from autoscaler.sim.workload import Lengths

_CUTS = (0.0, 0.5, 0.8, 0.95, 1.0)
"""Classes by output length: the tail twentieth holds a third of all tokens in reasoning traces and needs its own."""
GRID = 100
"""`late` is a table over fullness 0..1 in this many steps."""


@dataclass(frozen=True, slots=True)
class PoolModel:
    """One kind of replica under one mix of requests."""

    replica: ReplicaModel
    prompt_tokens: float
    """Mean."""
    shares: tuple[float, ...]
    """Of arrivals, by class."""
    outputs: tuple[float, ...]
    """Mean output tokens by class."""
    tokens: tuple[float, ...]
    """Mean prompt and output tokens by class: the KV memory that a request reserves."""
    kv_room: float
    """Share of the KV memory that is filled when requests wait for it; the rest is too small for who is next."""
    late: tuple[float, ...]
    """Share of requests past the objective while none waits, by fullness in `GRID` steps."""
    late_wait_s: float
    """Mean wait that makes half of the requests late."""
    spread_s: float
    """Standard deviation of waits around their mean, as replicas differ."""
    drain_s: tuple[float, ...]
    """Time until the last of 0, 1, ... `max_running` running requests is done."""
    full_s: float = 10.0
    """Longest wait in the balancer; then the request is refused."""

    @property
    def prefill_per_s(self) -> float:
        """Prompts a second that an otherwise empty replica computes."""
        return 1.0 / (self.replica.prefill_s_per_token * self.prompt_tokens)


def classes(lengths: Lengths) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Shares, mean outputs and mean reserved tokens of the length classes."""
    order = np.argsort(lengths.output_tokens, kind="stable")
    outputs, prompts = lengths.output_tokens[order], lengths.prompt_tokens[order]
    bounds = [int(cut * len(order)) for cut in _CUTS]
    parts = [slice(low, high) for low, high in pairwise(bounds) if high > low]
    return (
        tuple((part.stop - part.start) / len(order) for part in parts),
        tuple(float(outputs[part].mean()) for part in parts),
        tuple(float((outputs[part] + prompts[part]).mean()) for part in parts),
    )


def drain_times(model: ReplicaModel, lengths: Lengths, rng: np.random.Generator) -> tuple[float, ...]:
    """Mean time until the last of n running requests is done: what they have left is uniform in their length, and who
    runs is drawn in proportion to length. Steps get shorter as they leave; half of the batch is taken."""
    outputs = lengths.output_tokens.astype(float)
    picked = rng.choice(outputs, size=(200, model.max_running), p=outputs / outputs.sum())
    left: Floats = picked * rng.random(picked.shape)
    longest = np.maximum.accumulate(left, axis=1).mean(axis=0)
    steps = [model.step_s + 0.5 * model.step_s_per_running * (count + 1) for count in range(model.max_running)]
    return (0.0, *(float(tokens) * step * model.slow_factor for tokens, step in zip(longest, steps, strict=True)))


def plain(model: ReplicaModel, lengths: Lengths, *, seed: int = 1) -> PoolModel:
    """A model without what only the exact engine can tell: nobody is late while there is room."""
    shares, outputs, tokens = classes(lengths)
    return PoolModel(
        replica=model,
        prompt_tokens=float(lengths.prompt_tokens.mean()),
        shares=shares,
        outputs=outputs,
        tokens=tokens,
        kv_room=0.95,
        late=(0.0,) * (GRID + 1),
        late_wait_s=1.6,
        spread_s=0.8,
        drain_s=drain_times(model, lengths, np.random.default_rng(seed)),
    )


def interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Linear between points, flat beyond them."""
    index = bisect_left(xs, x)
    if index == 0:
        return ys[0]
    if index == len(xs):
        return ys[-1]
    share = (x - xs[index - 1]) / (xs[index] - xs[index - 1])
    return ys[index - 1] + share * (ys[index] - ys[index - 1])
