"""The pool model in motion: one second at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoscaler.sim.pool_model import BUCKETS, GRID, PoolModel
from autoscaler.sim.series import Floats

_MOST_PREFILL = 0.9
"""Share of time that prompts can take; the rest are the steps that they ride on."""
_SPREAD = 1.7
"""A uniform distribution of +-1.7 standard deviations stands for a normal one: same variance, and cheap."""
_RATE_STEP = 0.1
"""Weight of a second in smoothed rates: ten seconds, about the time of a short answer."""

_CHUNK_S = 100
"""Lengths are drawn for so many seconds at a time (1 MB: it stays in the cache)."""


class Second(NamedTuple):
    """What arrives in a second."""

    came: int
    """Requests."""
    prefill_s: float
    """Replica time that their prompts take."""
    ends: Floats
    """[requests, reserved tokens] by how many buckets of answer tokens they will take."""


class Passed(NamedTuple):
    """What came of a second, in requests."""

    late: float
    """Of those that came, those refused included."""
    refused: float
    served: float
    delay_s: float
    """Sum of the times to first token of those that came beyond those on an idle replica."""


def draw(model: PoolModel, arrivals: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Second]:
    """These seconds, with lengths drawn as the exact engine draws them: a few long requests are most of the work."""
    for begin in range(0, len(arrivals), _CHUNK_S):
        yield from _chunk(model, arrivals[begin : begin + _CHUNK_S], rng)


def _chunk(model: PoolModel, arrivals: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Second]:
    seconds = len(arrivals)
    lengths = model.lengths
    picks = rng.integers(0, len(lengths.output_tokens), int(arrivals.sum()))
    prompts, outputs = lengths.prompt_tokens[picks], lengths.output_tokens[picks]
    at = np.repeat(np.arange(seconds), arrivals)
    prompts_s = prompts * (model.replica.prefill_s_per_token * model.replica.slow_factor)
    # They arrive in the midst of the second; once their prompt is computed they get their share of the tokens.
    left = np.maximum(0.0, outputs - model.pace * (0.5 - prompts_s))
    cells = at * BUCKETS + np.minimum(left / model.bucket_tokens, BUCKETS - 1).astype(np.int64)
    ends = np.empty((seconds, 2, BUCKETS))
    ends[:, 0] = np.bincount(cells, minlength=seconds * BUCKETS).reshape(seconds, BUCKETS)
    ends[:, 1] = np.bincount(cells, prompts + outputs, seconds * BUCKETS).reshape(seconds, BUCKETS)
    prefill = np.bincount(at, prompts_s, seconds)
    return map(Second, arrivals.tolist(), prefill.tolist(), ends)


class Flow:
    """Requests in a pool. All ready replicas share them equally, which is what least-outstanding comes to.

    All that run get their tokens at the same pace, so a request ends when the common count of tokens has gone on by the
    length of its answer. A ring of buckets over that count holds who ends where.
    """

    __slots__ = (
        "_admit_rate", "_kv", "_late", "_limit", "_line", "_line_s", "_mean_tokens", "_model", "_passed", "_prefill_s",
        "_reserved", "_ring", "_soon", "_span", "_tokens", "arrival_rate", "fullness", "total", "waiting",
    )  # fmt: skip

    def __init__(self, model: PoolModel) -> None:
        self._model = model
        replica = model.replica
        self._kv = model.kv_room * replica.kv_tokens
        self._mean_tokens = model.request_tokens
        self._limit = replica.max_running
        self._late = model.late
        self._soon = model.late_wait_s - _SPREAD * model.spread_s
        self._span = 2.0 * _SPREAD * model.spread_s
        self._ring: Floats = np.zeros((2, BUCKETS))
        """[requests, reserved tokens] of what runs, by the bucket in which it ends."""
        self._tokens = 0.0
        """Tokens that a request would have got that runs since the beginning."""
        self._passed = 0
        """Whole buckets of them."""
        self._reserved = 0.0
        self.total = 0.0
        """Running requests."""
        self.waiting = 0.0
        self._line: Floats = np.zeros((2, BUCKETS))
        """Who waits, as in `Second.ends`."""
        self._line_s = 0.0
        """Replica time that their prompts take."""
        self._prefill_s = 0.0
        """The same of those that run."""
        self.arrival_rate = 0.0
        self._admit_rate = 0.0
        self.fullness = 0.0
        """Share of KV memory or slots that is taken, whichever is more."""

    def fill(self, ready: int, per_s: float) -> None:
        """Start in the steady state for `per_s` requests a second, as far as `ready` replicas hold it."""
        if not ready:
            return
        model, replica = self._model, self._model.replica
        busy = min(_MOST_PREFILL, replica.prefill_s_per_token * model.prompt_tokens * per_s / ready)
        for _ in range(50):
            step_s = (replica.step_s + replica.step_s_per_running * self.total / ready) / (1.0 - busy)
            self.total = min(per_s * model.output_tokens * step_s * replica.slow_factor, float(ready * self._limit))
        self._put(model.steady * self.total)
        self.arrival_rate = self._admit_rate = per_s

    def second(self, drawn: Second, ready: int) -> Passed:
        """Let a second pass."""
        came = drawn.came
        self.arrival_rate += _RATE_STEP * (came - self.arrival_rate)
        if not ready:
            self._queue(drawn)
            refused = max(0.0, self.waiting - self._model.full_s * max(self.arrival_rate, 1.0))
            self._turn_away(refused)
            return Passed(float(came), refused, 0.0, came * self._model.full_s)
        served = self._complete(ready)
        room = min((ready * self._kv - self._reserved) / self._mean_tokens, ready * self._limit - self.total)
        if not self.waiting and came <= room:
            admitted = float(came)
            if came:
                self._put(drawn.ends)
                self._prefill_s += drawn.prefill_s
        else:
            self._queue(drawn)
            admitted = min(self.waiting, max(0.0, room))
            self._admit(admitted)
        self.total += admitted
        self._admit_rate += _RATE_STEP * (admitted - self._admit_rate)
        memory = self._reserved / (ready * self._model.replica.kv_tokens)
        self.fullness = max(memory, self.total / (ready * self._limit))
        return self._judge(came, ready, served)

    # ------------------------------------------------------------------ who waits

    def _queue(self, drawn: Second) -> None:
        self.waiting += drawn.came
        self._line += drawn.ends
        self._line_s += drawn.prefill_s

    def _admit(self, admitted: float) -> None:
        """Who waits is mixed: in turn would need a real queue, and sums hardly notice the order."""
        if admitted <= 0.0:
            return
        part = admitted / self.waiting
        self._put(self._line * part)
        self._prefill_s += part * self._line_s
        self._shorten(1.0 - part)
        self.waiting -= admitted

    def _turn_away(self, refused: float) -> None:
        if refused > 0.0:
            self._shorten(1.0 - refused / self.waiting)
            self.waiting -= refused

    def _shorten(self, keep: float) -> None:
        self._line *= keep
        self._line_s *= keep

    # ------------------------------------------------------------------ who runs

    def _put(self, ends: Floats) -> None:
        at = self._passed % BUCKETS
        ring = self._ring
        if at:
            ring[:, at:] += ends[:, :-at]
            ring[:, :at] += ends[:, -at:]
        else:
            ring += ends
        self._reserved += float(ends[1].sum())

    def _complete(self, ready: int) -> float:
        """Requests that end in this second."""
        model = self._model
        replica = model.replica
        busy = min(_MOST_PREFILL, self._prefill_s / ready)
        self._prefill_s -= busy * ready
        step_s = (replica.step_s + replica.step_s_per_running * self.total / ready) * replica.slow_factor
        self._tokens += (1.0 - busy) / step_s
        passed = int(self._tokens / model.bucket_tokens)
        ring = self._ring
        served = 0.0
        for bucket in range(self._passed, passed):
            column = ring[:, bucket % BUCKETS]
            served += column.item(0)
            self._reserved -= column.item(1)
            column[:] = 0.0
        self._passed = passed
        self.total = max(0.0, self.total - served)
        return served

    def _judge(self, came: int, ready: int, served: float) -> Passed:
        step = min(GRID, int(GRID * self.fullness))
        share, delay_s = self._late[step], self._model.delay_s[step]
        refused = 0.0
        if self.waiting > 0.0:
            pace = max(self._admit_rate, 1e-9)
            wait_s = min(self.waiting / pace, self._model.full_s)
            delay_s += wait_s
            late = (wait_s - self._soon) / self._span
            share = max(share, min(1.0, late))
            # Replicas hold some of those that wait; the balancer turns away who waits for longer than it allows.
            at_replicas = max(0.0, ready * self._limit - self.total)
            refused = min(float(came), max(0.0, self.waiting - at_replicas - pace * self._model.full_s))
            self._turn_away(refused)
        return Passed(max(came * share, refused), refused, served, came * delay_s)

    # ------------------------------------------------------------------ replicas come and go

    def leave(self, ready: int) -> float:
        """One of `ready` replicas leaves with its share of what runs. Returns how many requests that is."""
        if not ready:
            return 0.0
        keep = 1.0 - 1.0 / ready
        gone = self.total / ready
        self._ring *= keep
        self._reserved *= keep
        self._prefill_s *= keep
        self.total -= gone
        return gone

    def come_back(self, requests: float) -> None:
        """A draining replica is taken back with what still runs on it."""
        self._put(self._model.steady * requests)
        self.total += requests

    def join(self, ready: int) -> float:
        """An empty replica joins `ready - 1` others. It has the least outstanding and gets every request until it has
        as many as the others: more prompts at once than it can compute in time. Returns how many come late."""
        model = self._model
        if ready < 2:
            return 0.0
        fill = min(float(self._limit), (self.total + self.waiting) / ready)
        rate, prompts = max(self.arrival_rate, 1e-9), model.prefill_per_s
        if rate <= prompts:
            return 0.0
        return max(0.0, fill - model.late_wait_s * prompts * rate / (rate - prompts))
