"""What describes a modelled replica and its requests: speed, size, lengths, and what happens to them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """Speed and size of a replica. The defaults resemble an 8B model on one large GPU."""

    step_s: float = 0.012
    """Fixed time of a step: reading the weights once."""
    step_s_per_running: float = 0.00015
    """What each running request adds to a step."""
    prefill_s_per_token: float = 0.00012
    """What each prompt token adds to a step."""
    prefill_tokens_per_step: int = 2048
    """Prompt tokens that a step takes in all (vLLM's usual `max_num_batched_tokens`)."""
    max_running: int = 64
    kv_tokens: int = 262_144
    """KV memory: 64 requests of 4,096 tokens."""
    block_tokens: int = 512
    """Unit of the prefix cache; the block size of the Mooncake traces."""
    prefix_cache: bool = False
    slow_factor: float = 1.0
    """Every step takes this many times longer (2.5: a throttled or older GPU)."""

    def alone_s(self, prompt_tokens: int, output_tokens: int) -> tuple[float, float]:
        """(time to first token, end-to-end time) in seconds of a request alone on an idle replica with a cold cache."""
        step_s = self.step_s + self.step_s_per_running
        steps = max(1, ceil(prompt_tokens / self.prefill_tokens_per_step))
        first_s = (steps * step_s + prompt_tokens * self.prefill_s_per_token) * self.slow_factor
        return first_s, first_s + (output_tokens - 1) * step_s * self.slow_factor


class SimRequest(NamedTuple):
    """What a replica is asked to do, with the output length that only the replica knows."""

    id: Hashable
    prompt_tokens: int
    output_tokens: int
    blocks: Sequence[Hashable] = ()
    """Ids of the prompt's full blocks, for the prefix cache; may be empty."""


class EventKind(StrEnum):
    """What a replica tells of a request."""

    FIRST_TOKEN = "first_token"  # noqa: S105 - not a secret
    FINISHED = "finished"


class ReplicaEvent(NamedTuple):
    """One such moment of one request."""

    kind: EventKind
    request_id: Hashable
    at_s: float
    """When it happened; never later than the `now` of the call that returns it."""
    cached_tokens: int
    """Prompt tokens that the prefix cache spared."""


class PromptTooLongError(ValueError):
    """Prompt and output would never fit into the replica's KV memory."""
