"""The pool model in motion: one second at a time."""

from __future__ import annotations

from math import sqrt

from autoscaler.sim.pool_model import GRID, PoolModel

_MOST_PREFILL = 0.9
"""Share of time that prompts can take; the rest are the steps that they ride on."""
_SPREAD = 1.7
"""A uniform distribution of +-1.7 standard deviations stands for a normal one: same variance, and cheap."""
_RATE_STEP = 0.1
"""Weight of a second in smoothed rates: ten seconds, about the time of a short answer."""


class Flow:
    """Requests in a pool. All ready replicas share them equally, which is what least-outstanding comes to."""

    __slots__ = (
        "_admit_rate", "_inverse", "_kv", "_late", "_limit", "_mean_tokens", "_model", "_most_wait", "_soon", "_span",
        "arrival_rate", "fullness", "running", "total", "waiting",
    )  # fmt: skip

    def __init__(self, model: PoolModel) -> None:
        self._model = model
        replica = model.replica
        self._kv = model.kv_room * replica.kv_tokens
        self._mean_tokens = sum(share * tokens for share, tokens in zip(model.shares, model.tokens, strict=True))
        self._inverse = [1.0 / output for output in model.outputs]
        self._limit = replica.max_running
        self._late = model.late
        self._soon = model.late_wait_s - _SPREAD * model.spread_s
        self._span = 2.0 * _SPREAD * model.spread_s
        self.running = [0.0] * len(model.shares)
        """By class."""
        self.total = 0.0
        """Of them."""
        self.waiting = 0.0
        self.arrival_rate = 0.0
        self._admit_rate = 0.0
        self.fullness = 0.0
        """Share of KV memory or slots that is taken, whichever is more."""

    def fill(self, ready: int, per_s: float) -> None:
        """Start in the steady state for `per_s` requests a second, as far as `ready` replicas hold it."""
        if not ready:
            return
        model, replica = self._model, self._model.replica
        step_s = replica.step_s
        for _ in range(50):
            busy = min(_MOST_PREFILL, replica.prefill_s_per_token * model.prompt_tokens * per_s / ready)
            step_s = (replica.step_s + replica.step_s_per_running * self.total / ready) / (1.0 - busy)
            step_s *= replica.slow_factor
            self.running = [per_s * s * o * step_s for s, o in zip(model.shares, model.outputs, strict=True)]
            self.total = min(sum(self.running), float(ready * self._limit))
        scale = self.total / max(sum(self.running), 1e-9)
        self.running = [one * scale for one in self.running]
        self.arrival_rate = self._admit_rate = per_s

    def second(self, came: int, ready: int, noise: float) -> tuple[float, float, float]:
        """Let a second pass in which `came` requests arrive. `noise`: a standard normal number for the scatter of
        completions. Returns requests (late, refused, served); those refused are counted as late too."""
        self.arrival_rate += _RATE_STEP * (came - self.arrival_rate)
        if not ready:
            self.waiting += came
            refused = max(0.0, self.waiting - self._model.full_s * max(self.arrival_rate, 1.0))
            self.waiting -= refused
            return float(came), refused, 0.0
        served = self._complete(ready, noise)
        reserved = 0.0
        for one, tokens in zip(self.running, self._model.tokens, strict=True):
            reserved += one * tokens
        room = min((ready * self._kv - reserved) / self._mean_tokens, ready * self._limit - self.total)
        waiting = self.waiting + came
        admitted = min(waiting, max(0.0, room))
        for index, share in enumerate(self._model.shares):
            self.running[index] += admitted * share
        self.total += admitted
        self.waiting = waiting - admitted
        self._admit_rate += _RATE_STEP * (admitted - self._admit_rate)
        slots = self.total / (ready * self._limit)
        memory = (reserved + admitted * self._mean_tokens) / (ready * self._model.replica.kv_tokens)
        self.fullness = max(memory, slots)
        return self._judge(came, ready, served)

    def _complete(self, ready: int, noise: float) -> float:
        """Requests that end in this second."""
        model = self._model
        replica = model.replica
        busy = min(_MOST_PREFILL, replica.prefill_s_per_token * model.prompt_tokens * self._admit_rate / ready)
        steps = (1.0 - busy) / (
            (replica.step_s + replica.step_s_per_running * self.total / ready) * replica.slow_factor
        )
        running = self.running
        ended = 0.0
        for index, inverse in enumerate(self._inverse):
            done = running[index] * min(1.0, inverse * steps)
            running[index] -= done
            ended += done
        # The scatter falls on the classes as they end, most of it on the short ones.
        scatter = sqrt(ended) * noise
        first = running[0]
        taken = min(first, max(-first, scatter))
        running[0] = first - taken
        served = ended + taken
        self.total = max(0.0, self.total - served)
        return served

    def _judge(self, came: int, ready: int, served: float) -> tuple[float, float, float]:
        share = self._late[min(GRID, int(GRID * self.fullness))]
        refused = 0.0
        if self.waiting > 0.0:
            pace = max(self._admit_rate, 1e-9)
            late = (self.waiting / pace - self._soon) / self._span
            share = max(share, min(1.0, late))
            # Replicas hold some of those that wait; the balancer turns away who waits for longer than it allows.
            at_replicas = max(0.0, ready * self._limit - self.total)
            refused = min(float(came), max(0.0, self.waiting - at_replicas - pace * self._model.full_s))
            self.waiting -= refused
        return max(came * share, refused), refused, served

    def leave(self, ready: int) -> float:
        """One of `ready` replicas leaves with its share of what runs. Returns how many requests that is."""
        if not ready:
            return 0.0
        keep = 1.0 - 1.0 / ready
        gone = self.total / ready
        self.running = [one * keep for one in self.running]
        self.total -= gone
        return gone

    def come_back(self, requests: float) -> None:
        """A draining replica is taken back with what still runs on it: long answers, of which most are left."""
        self.running[-1] += requests
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
