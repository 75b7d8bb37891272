"""A little traffic of the kind that chat products have: short and long prompts, shared beginnings, mostly streams."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from math import pi, sin

from autoscaler.demo.client import exchange

MODEL = "mock-model"
_PERIOD_S = 120.0
_QUIET = 0.1
"""Share of the peak that goes on in quiet times."""
_WINDOW = 200
"""Requests over which latency is shown."""
_PROMPT_TOKENS = (400, 3000)
"""Means of short and long prompts; one in six is long."""
_OUTPUT_TOKENS = 150
_SYSTEM_PROMPTS = tuple(f"You are assistant number {number}. " + "Mind the rules. " * 150 for number in range(3))
"""About 600 tokens each: whoever has seen one needs no prefill for it."""


@dataclass(slots=True)
class Tally:
    """What the traffic met."""

    sent: int = 0
    rate: float = 0.0
    """Requests per second that are meant to be sent now."""
    failed: Counter[str] = field(default_factory=Counter)
    first_s: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    total_s: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    last_request_id: str = ""


def wave(peak: float, after_s: float) -> float:
    """Requests per second: a hump of a minute, then a quiet minute, and again."""
    height = max(0.0, sin(2.0 * pi * after_s / _PERIOD_S))
    return peak * (_QUIET + (1.0 - _QUIET) * height)


class Traffic:
    """Poisson arrivals at a rate that rises to `peak` requests per second and falls."""

    def __init__(self, address: str, peak: float, rng: random.Random) -> None:
        self.tally = Tally()
        self._address = address
        self._peak = peak
        self._rng = rng
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; requests that are open then are cut."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while True:
                self.tally.rate = wave(self._peak, loop.time() - began)
                # Thinning: candidates at the peak's rate, of which the present rate's share is sent.
                await asyncio.sleep(self._rng.expovariate(self._peak))
                if self._rng.random() * self._peak > self.tally.rate:
                    continue
                task = asyncio.create_task(self._one(self._body()), name="demo request")
                self._open.add(task)
                task.add_done_callback(self._open.discard)
        finally:
            for task in self._open:
                task.cancel()

    async def _one(self, body: bytes) -> None:
        self.tally.sent += 1
        try:
            answer = await exchange(self._address, "POST", "/v1/chat/completions", body)
        except (OSError, TimeoutError, ValueError) as error:
            self.tally.failed[type(error).__name__] += 1
            return
        self.tally.last_request_id = answer.request_id or self.tally.last_request_id
        if answer.status != 200:
            self.tally.failed[str(answer.status)] += 1
        else:
            self.tally.first_s.append(answer.first_s)
            self.tally.total_s.append(answer.total_s)

    def _body(self) -> bytes:
        rng = self._rng
        mean = _PROMPT_TOKENS[1] if rng.random() < 1 / 6 else _PROMPT_TOKENS[0]
        question = f"Question {rng.random()}: " + "tell me. " * int(rng.lognormvariate(0, 0.5) * mean * 4 / 9)
        return json.dumps(
            {
                "model": MODEL,
                "messages": [
                    {"role": "system", "content": rng.choice(_SYSTEM_PROMPTS)},
                    {"role": "user", "content": question},
                ],
                "stream": rng.random() < 0.9,
                "stream_options": {"include_usage": True},
                "max_tokens": 2048,
                "mock_output_tokens": 1 + int(rng.expovariate(1 / _OUTPUT_TOKENS)),
            }
        ).encode()
