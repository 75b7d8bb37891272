"""A pool of replicas as one: what the fast engine steps through, second by second.

A replica with b running requests makes a step in `step + per_running x b` seconds, longer by the share of time that
prompts take, and every running request gets a token a step. Waiting ones are admitted while slots and KV memory have
room, as in the exact model. Lengths are drawn from the same trace as there.

Chance that a request is late although the pool as a whole has room comes from the exact engine, as a function of how
full the pool is (`autoscaler.sim.calibration`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autoscaler.sim.replica_model import ReplicaModel
from autoscaler.sim.series import Floats
from autoscaler.sim.workload import Lengths

BUCKETS = 512
"""Answers are counted in so many parts of the longest one: ten tokens, or a third of a second, in reasoning traces."""
GRID = 100
"""`late` is a table over fullness 0..1 in this many steps."""


@dataclass(frozen=True, slots=True)
class PoolModel:
    """One kind of replica under one mix of requests."""

    replica: ReplicaModel
    lengths: Lengths = field(compare=False, repr=False)
    """Of requests, to draw from."""
    prompt_tokens: float
    """Mean."""
    output_tokens: float
    """Mean."""
    request_tokens: float
    """Mean of prompt and output: the KV memory that a request reserves."""
    bucket_tokens: float
    """Answer tokens in one of `BUCKETS`."""
    steady: Floats = field(compare=False, repr=False)
    """[requests, reserved tokens] of one running request in a steady state, by buckets to its end."""
    kv_room: float
    """Share of the KV memory that is filled when requests wait for it; the rest is too small for who is next."""
    late: tuple[float, ...]
    """Share of requests past the objective while none waits, by fullness in `GRID` steps."""
    delay_s: tuple[float, ...]
    """Mean time to first token beyond that on an idle replica while none waits, in the same steps."""
    late_wait_s: float
    """Mean wait that makes half of the requests late."""
    spread_s: float
    """Standard deviation of waits around their mean, as replicas differ."""
    drain_s: tuple[float, ...]
    """Time until the last of 0, 1, ... `max_running` running requests is done."""
    full_s: float = 10.0
    """Longest wait in the balancer; then the request is refused."""

    @property
    def pace(self) -> float:
        """Answer tokens a second that each request gets on a replica that is half full, prompts and all."""
        replica = self.replica
        prompt_s = replica.prefill_s_per_token * self.prompt_tokens / self.output_tokens
        step_s = replica.step_s + 0.5 * replica.max_running * (replica.step_s_per_running + prompt_s)
        return 1.0 / (step_s * replica.slow_factor)

    @property
    def prefill_per_s(self) -> float:
        """Prompts a second that an otherwise empty replica computes."""
        return 1.0 / (self.replica.prefill_s_per_token * self.prompt_tokens)


def steady_ends(lengths: Lengths, bucket_tokens: float) -> Floats:
    """What one running request has left in a steady state: who runs is drawn in proportion to length, and what it has
    left is uniform in it."""
    outputs = lengths.output_tokens
    order = np.argsort(outputs)
    tokens = (outputs + lengths.prompt_tokens)[order]
    # Requests that are longer than the middle of a bucket, and the tokens that they reserve.
    first = np.searchsorted(outputs[order], (np.arange(BUCKETS) + 0.5) * bucket_tokens)
    beyond = np.append(np.cumsum(tokens[::-1])[::-1], 0)
    ends: Floats = np.array([len(outputs) - first, beyond[first]], dtype=np.float64)
    ends /= ends[0].sum()
    return ends


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
    # One more than the longest answer fills: the bucket that is being worked on.
    bucket_tokens = float(lengths.output_tokens.max()) / (BUCKETS - 2)
    return PoolModel(
        replica=model,
        lengths=lengths,
        prompt_tokens=float(lengths.prompt_tokens.mean()),
        output_tokens=float(lengths.output_tokens.mean()),
        request_tokens=float((lengths.prompt_tokens + lengths.output_tokens).mean()),
        bucket_tokens=bucket_tokens,
        steady=steady_ends(lengths, bucket_tokens),
        kv_room=0.95,
        late=(0.0,) * (GRID + 1),
        delay_s=(0.0,) * (GRID + 1),
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
