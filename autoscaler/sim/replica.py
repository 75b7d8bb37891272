"""One replica with continuous batching, as a pure model: time is a value, events come out.

A step takes `step_s + step_s_per_running * running + prefill_s_per_token * prefill tokens in the step`, times
`slow_factor`. In each step the oldest prompts prefill up to `prefill_tokens_per_step` tokens between them (chunked
prefill), and every request whose prompt is done generates one token, at the step's end; the step that ends a prompt
also gives its first token. Requests are admitted at step boundaries, first come first served, while a slot is free and
the KV memory has room for prompt and output.

Stretches in which nothing changes but token counts are skipped in one go, so the cost is a few events per request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from math import ceil, floor, inf

from autoscaler.sim.prefix_cache import PrefixCache
from autoscaler.sim.replica_model import EventKind, PromptTooLongError, ReplicaEvent, ReplicaModel, SimRequest

__all__ = ["EventKind", "PromptTooLongError", "Replica", "ReplicaEvent", "ReplicaModel", "SimRequest"]

# A boundary computed as start + k * step may miss an arrival on it by rounding; a billionth of a step is no time.
_ROUNDING_STEPS = 1e-9
_MANY_UNSEEN = 256
"""Nobody may ever ask for `queued`; so many notes for it are cleared out unasked."""


class _Job:
    """Progress of one request. `clock` counts the replica's steps; tokens follow from it without any bookkeeping."""

    __slots__ = ("blocks_held", "cached_tokens", "finish_clock", "first_clock", "gone", "prefill_left", "request")

    def __init__(self, request: SimRequest) -> None:
        self.request = request
        self.prefill_left = request.prompt_tokens
        self.cached_tokens = 0
        self.blocks_held = 0
        self.first_clock = -1
        self.finish_clock = -1
        self.gone = False

    def copy(self) -> _Job:
        twin = _Job(self.request)
        for name in ("prefill_left", "cached_tokens", "blocks_held", "first_clock", "finish_clock", "gone"):
            setattr(twin, name, getattr(self, name))
        return twin


class Replica:
    """The model's state. Calls must come with a `now` that never goes back; one caller at a time.

    A request submitted at the very instant of a step boundary joins the step that starts there.
    """

    def __init__(self, model: ReplicaModel | None = None) -> None:
        self.model = model or ReplicaModel()
        self.slow_factor = self.model.slow_factor
        self.prompt_tokens_total = 0
        self.generation_tokens_total = 0
        self.prefix_query_tokens = 0
        self.prefix_hit_tokens = 0
        self.busy_s = 0.0
        self._jobs: dict[Hashable, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._waiting_count = 0
        self._unseen: deque[float] = deque()
        """When the engine will notice each request that came within a step: at its end."""
        self._prefilling: deque[_Job] = deque()
        self._finishing: list[tuple[int, int, _Job]] = []
        self._running = 0
        self._decoding = 0
        self._reserved = 0
        self._in_use = 0
        self._cache = PrefixCache()
        self._events: list[ReplicaEvent] = []
        self._seq = 0
        self._clock = 0
        # The plan: `_steps` equal steps of `_step_s` from `_start`; 0 steps: not planned.
        self._start = 0.0
        self._steps = 0
        self._step_s = 0.0
        self._end = inf
        self._chunks: list[tuple[_Job, int]] = []

    # ------------------------------------------------------------------ what one may ask

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return self._waiting_count

    def queued(self, now: float) -> int:
        """Requests that found no room at the last step boundary: what an engine reports as waiting. Those that came
        within the step under way are not seen by it yet (`waiting` counts them)."""
        unseen = self._unseen
        while unseen and unseen[0] <= now:
            unseen.popleft()
        return max(0, self._waiting_count - len(unseen))

    @property
    def kv_reserved_tokens(self) -> int:
        """Prompt and output of every running request; admission goes by it."""
        return self._reserved

    @property
    def kv_usage_ratio(self) -> float:
        """Share of the KV memory that holds tokens of running requests now, 0..1 (as vLLM's kv_cache_usage_perc)."""
        return min(1.0, self._in_use / self.model.kv_tokens)

    @property
    def idle_cache_blocks(self) -> int:
        return self._cache.idle_blocks

    def generated_tokens(self, request_id: Hashable, now: float) -> int:
        """Tokens that a submitted, unfinished request has by `now`."""
        job = self._jobs[request_id]
        if job.first_clock < 0:
            return 0
        done = min(self._steps, floor((now - self._start) / self._step_s + _ROUNDING_STEPS)) if self._steps else 0
        return 1 + self._clock + max(0, done) - job.first_clock

    def next_event_at(self) -> float:
        """When to call `advance` next: the end of the stretch that is planned; inf when idle."""
        if not self._steps:
            self._plan()
        return self._end

    def next_step_at(self, now: float) -> float:
        """The next step boundary after `now`, where tokens appear; inf when idle. Advance to `now` first."""
        if not self._steps:
            self._plan()
        if not self._steps:
            return inf
        return min(
            self._end, self._start + (floor((now - self._start) / self._step_s + _ROUNDING_STEPS) + 1) * self._step_s
        )

    # ------------------------------------------------------------------ what one may do

    def submit(self, request: SimRequest, now: float) -> None:
        """Queue a request. Raises PromptTooLongError if it can never fit, ValueError if it is empty or already here."""
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise ValueError(f"request {request.id!r} needs at least one prompt and one output token")
        if request.prompt_tokens + request.output_tokens > self.model.kv_tokens:
            raise PromptTooLongError(
                f"request {request.id!r} needs {request.prompt_tokens} + {request.output_tokens} tokens, "
                f"the KV memory holds {self.model.kv_tokens}"
            )
        if request.id in self._jobs:
            raise ValueError(f"request {request.id!r} is already here")
        self._run_until(now)
        if not self._jobs and not self._steps:
            self._start = max(self._start, now)
        job = _Job(request)
        self._jobs[request.id] = job
        self._waiting.append(job)
        self._waiting_count += 1
        if self._steps:
            self._unseen.append(self.next_step_at(now))
            if len(self._unseen) > _MANY_UNSEEN:
                self.queued(now)
        if self._waiting_count == 1 and self._has_room(request):
            self._cut_plan(now)

    def cancel(self, request_id: Hashable, now: float) -> bool:
        """Forget a request: its slot and memory are free at once. False if it is not here (any more)."""
        self._run_until(now)
        job = self._jobs.pop(request_id, None)
        if job is None:
            return False
        self._settle(now)
        job.gone = True
        if job.finish_clock >= 0 or job in self._prefilling:
            self._in_use -= self._tokens_in_use(job)
            self._leave(job)
            if job.finish_clock >= 0:
                self._decoding -= 1
            else:
                self._prefilling.remove(job)
        else:
            self._waiting_count -= 1
        self._cut_plan(now)
        return True

    def advance(self, now: float) -> list[ReplicaEvent]:
        """Let time pass until `now`; returns what happened since the last call, in order."""
        self._run_until(now)
        events = self._events
        self._events = []
        return events

    def set_slow_factor(self, factor: float, now: float) -> None:
        """Change the speed from the next step on."""
        self._run_until(now)
        self.slow_factor = factor
        self._cut_plan(now)

    def clear_cache(self) -> None:
        """Forget every idle block, as a restart does."""
        self._cache.shrink(0)

    # ------------------------------------------------------------------ what only a clairvoyant may ask

    def copy(self) -> Replica:
        """An independent twin, for trying out."""
        twin = Replica(self.model)
        twin.__dict__.update(self.__dict__)
        jobs = {id(job): job.copy() for job in self._jobs.values()}
        twin._jobs = {key: jobs[id(job)] for key, job in self._jobs.items()}
        twin._waiting = deque(jobs[id(job)] for job in self._waiting if not job.gone)
        twin._prefilling = deque(jobs[id(job)] for job in self._prefilling)
        twin._finishing = [(at, seq, jobs[id(job)]) for at, seq, job in self._finishing if not job.gone]
        heapify(twin._finishing)
        twin._unseen = self._unseen.copy()
        twin._chunks = [(jobs[id(job)], size) for job, size in self._chunks if not job.gone]
        twin._cache = self._cache.copy()
        twin._events = []
        return twin

    def finish_if_submitted(self, request: SimRequest, now: float) -> tuple[float, float]:
        """(first token, end) in absolute seconds if `request` came now and nothing came after it."""
        twin = self.copy()
        twin.submit(request, now)
        first = inf
        while True:
            for event in twin.advance(twin.next_event_at()):
                if event.request_id == request.id:
                    if event.kind is EventKind.FINISHED:
                        return first, event.at_s
                    first = event.at_s

    def work_left(self, now: float) -> tuple[int, int]:
        """(prompt tokens, output tokens) still to be computed for everything here, with the true lengths."""
        prompt = output = 0
        for job in self._jobs.values():
            prompt += job.prefill_left
            output += job.request.output_tokens - self.generated_tokens(job.request.id, now)
        return prompt, output

    # ------------------------------------------------------------------ steps

    def _has_room(self, request: SimRequest) -> bool:
        return (
            self._running < self.model.max_running
            and self._reserved + request.prompt_tokens + request.output_tokens <= self.model.kv_tokens
        )

    def _run_until(self, now: float) -> None:
        while True:
            if not self._steps:
                if not self._jobs or self._start >= now:
                    return
                self._plan()
            if self._end > now:
                return
            self._apply()

    def _plan(self) -> None:
        """Fix what happens from the boundary `_start` on."""
        self._admit()
        if not self._running:
            self._steps, self._end = 0, inf
            return
        model = self.model
        step_s = model.step_s + model.step_s_per_running * self._running
        if self._prefilling:
            budget = model.prefill_tokens_per_step
            for job in self._prefilling:
                size = min(budget, job.prefill_left)
                self._chunks.append((job, size))
                budget -= size
                if not budget:
                    break
            step_s += model.prefill_s_per_token * (model.prefill_tokens_per_step - budget)
            self._steps = 1
        else:
            while self._finishing[0][2].gone:
                heappop(self._finishing)
            self._steps = self._finishing[0][0] - self._clock
        self._step_s = step_s * self.slow_factor
        self._end = self._start + self._steps * self._step_s

    def _cut_plan(self, now: float) -> None:
        """Something changed at `now`: the plan holds until the end of the step that is under way."""
        if not self._steps:
            return
        steps = ceil((now - self._start) / self._step_s - _ROUNDING_STEPS)
        if steps <= 0:
            self._chunks.clear()
            self._steps, self._end = 0, inf
        elif steps < self._steps:
            self._steps = steps
            self._end = self._start + steps * self._step_s

    def _settle(self, now: float) -> None:
        """Count the planned steps that are over, and keep the rest of the plan."""
        if self._steps > 1:
            done = min(self._steps - 1, floor((now - self._start) / self._step_s + _ROUNDING_STEPS))
            if done > 0:
                self._count(done, self._start + done * self._step_s)
                self._steps -= done

    def _count(self, steps: int, at: float) -> None:
        self._clock += steps
        self._in_use += steps * self._decoding
        self.generation_tokens_total += steps * self._decoding
        self.busy_s += at - self._start
        self._start = at

    def _apply(self) -> None:
        """The planned steps are over."""
        at = self._end
        self._count(self._steps, at)
        self._steps, self._end = 0, inf
        if self._chunks:
            for job, size in self._chunks:
                if not job.gone:
                    self._prefill(job, size, at)
            self._chunks.clear()
        finishing = self._finishing
        while finishing and (finishing[0][0] <= self._clock or finishing[0][2].gone):
            job = heappop(finishing)[2]
            if not job.gone:
                job.gone = True
                self._in_use -= job.request.prompt_tokens + job.request.output_tokens
                self._decoding -= 1
                self._leave(job)
                del self._jobs[job.request.id]
                self._events.append(ReplicaEvent(EventKind.FINISHED, job.request.id, at, job.cached_tokens))

    def _prefill(self, job: _Job, size: int, at: float) -> None:
        job.prefill_left -= size
        self._in_use += size
        if job.prefill_left:
            return
        request = job.request
        self._prefilling.popleft()
        self._decoding += 1
        self._in_use += 1
        self.prompt_tokens_total += request.prompt_tokens
        self.generation_tokens_total += 1
        if self.model.prefix_cache:
            full = min(len(request.blocks), request.prompt_tokens // self.model.block_tokens)
            self._cache.hold(request.blocks[job.blocks_held : full])
            job.blocks_held = full
        job.first_clock = self._clock
        job.finish_clock = self._clock + request.output_tokens - 1
        self._seq += 1
        heappush(self._finishing, (job.finish_clock, self._seq, job))
        self._events.append(ReplicaEvent(EventKind.FIRST_TOKEN, request.id, at, job.cached_tokens))

    def _admit(self) -> None:
        waiting = self._waiting
        while waiting:
            job = waiting[0]
            if job.gone:
                waiting.popleft()
                continue
            request = job.request
            if not self._has_room(request):
                return
            waiting.popleft()
            self._waiting_count -= 1
            self._running += 1
            self._reserved += request.prompt_tokens + request.output_tokens
            self._prefilling.append(job)
            if self.model.prefix_cache:
                self._take_from_cache(job)

    def _take_from_cache(self, job: _Job) -> None:
        """Skip the cached blocks; the last prompt token is always computed, it gives the first output token."""
        request, block = job.request, self.model.block_tokens
        hits = min(self._cache.match(request.blocks), (request.prompt_tokens - 1) // block)
        self._cache.hold(request.blocks[:hits])
        job.blocks_held = hits
        job.cached_tokens = hits * block
        job.prefill_left -= job.cached_tokens
        self._in_use += job.cached_tokens
        self.prefix_query_tokens += request.prompt_tokens
        self.prefix_hit_tokens += job.cached_tokens
        self._cache.shrink(max(0, self.model.kv_tokens - self._reserved) // block)

    def _tokens_in_use(self, job: _Job) -> int:
        generated = 0 if job.first_clock < 0 else 1 + self._clock - job.first_clock
        return job.request.prompt_tokens - job.prefill_left + generated

    def _leave(self, job: _Job) -> None:
        self._running -= 1
        self._reserved -= job.request.prompt_tokens + job.request.output_tokens
        if job.blocks_held:
            self._cache.release(job.request.blocks[: job.blocks_held])
            self._cache.shrink(max(0, self.model.kv_tokens - self._reserved) // self.model.block_tokens)
