"""Requests of a scenario: arrival times and lengths from traces, and the bodies that carry them."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autoscaler.sim.replica_model import SimRequest

TRACES = Path(__file__).parents[2] / "data" / "traces"
BLOCK_BYTES = 2048
"""512 tokens at the mock's 4 bytes a token."""
_LONGEST_INPUT = 8192
"""Inputs are cut here, as in the simulations of scaling; Mooncake's are not, they are what S4 is about."""
_LONGEST_OUTPUT = 4096
"""Outputs are cut here, which is the `max_tokens` that chat requests carry."""
_FILLER = " ".join(random.Random(5).choices(["river", "stone", "cloud", "amber", "quiet", "north", "lamp"], k=4000))


@dataclass(frozen=True, slots=True)
class Item:
    """One request of a workload."""

    at_s: float
    """Model seconds from the start."""
    prompt_tokens: int
    output_tokens: int
    """The true length; only the replica is told."""
    chat: bool = True
    """Chat completion, or text completion (code)."""
    block_ids: tuple[int, ...] = ()

    def sim(self, index: int) -> SimRequest:
        """The same for the model."""
        blocks: Sequence[Hashable] = self.block_ids[: self.prompt_tokens // 512]
        return SimRequest(index, self.prompt_tokens, self.output_tokens, blocks)


@dataclass(frozen=True, slots=True)
class Lengths:
    """(input, output) pairs to draw from, and whether they are chat."""

    pairs: tuple[tuple[int, int], ...]
    chat: bool


@lru_cache(maxsize=8)
def _rows(name: str) -> tuple[dict[str, str], ...]:
    with gzip.open(TRACES / name, "rt", newline="") as file:
        return tuple(csv.DictReader(file))


def lengths(name: str, *, chat: bool) -> Lengths:
    """Lengths of a trace, cut to what a request here may have."""
    pairs = (
        (min(int(row["input_tokens"]), _LONGEST_INPUT), min(int(row["output_tokens"]), _LONGEST_OUTPUT))
        for row in _rows(name)
    )
    return Lengths(tuple(pairs), chat)


def long_documents() -> Lengths:
    """Mooncake's lengths without its shared prefixes: prompts of 12,000 tokens in the mean, 126,000 at most."""
    pairs = ((int(row["input_tokens"]), max(1, int(row["output_tokens"]))) for row in _rows(MOONCAKE))
    return Lengths(tuple(pairs), chat=True)


SERVEGEN = "servegen_r1_sample.csv.gz"
AZURE = "azure_code_2023.csv.gz"
MOONCAKE = "mooncake_conversation_15min.csv.gz"


def poisson(
    kinds: Sequence[tuple[float, Lengths]], rates: Iterable[tuple[float, float, float]], seed: int
) -> list[Item]:
    """Poisson arrivals; `kinds` are (share, lengths), `rates` are (from, to, requests per second)."""
    rng = random.Random(seed)
    shares = [share for share, _ in kinds]
    items: list[Item] = []
    for start, end, rate in rates:
        at = start + rng.expovariate(rate)
        while at < end:
            kind = rng.choices(kinds, shares)[0][1]
            prompt, output = rng.choice(kind.pairs)
            items.append(Item(at, max(16, prompt), max(1, output), kind.chat))
            at += rng.expovariate(rate)
    return items


def mooncake(start_s: float, end_s: float, every: int, seed: int) -> list[Item]:
    """A part of the trace at its own pace, thinned to every n-th conversation (by its second block) if n > 1.

    The trace's clock counts in steps of 3 s; requests of a step are spread over it.
    """
    rng = random.Random(seed)
    items = []
    for row in _rows(MOONCAKE):
        at = float(row["arrival_seconds"])
        if not start_s <= at < end_s:
            continue
        ids = tuple(int(part) for part in row["prefix_blocks_512"].split())
        if every > 1 and (ids[1] if len(ids) > 1 else ids[0]) % every:
            continue
        prompt, output = int(row["input_tokens"]), max(1, int(row["output_tokens"]))
        items.append(Item(at - start_s + rng.uniform(0, 3.0), prompt, output, True, ids))
    return sorted(items, key=lambda item: item.at_s)


def body(item: Item, index: int, seed: int) -> tuple[str, bytes]:
    """(path, JSON). The true output length hides at the end of the prompt: some routers drop what they do not know."""
    mark = f" [mock_output_tokens={item.output_tokens}]"
    size = max(1, item.prompt_tokens * 4 - len(mark))
    if item.block_ids:
        text = "".join(_block_text(block) for block in item.block_ids)[:size]
        text += "x" * (size - len(text))
    else:
        rng = random.Random(seed * 1_000_003 + index)
        offset = rng.randrange(len(_FILLER))
        text = f"{rng.getrandbits(64):016x} {_FILLER[offset:]}"
        text = (text + _FILLER * (size // len(_FILLER) + 1))[:size]
    common = {"model": "mock-model", "stream": True, "stream_options": {"include_usage": True}}
    if item.chat:
        asked = {**common, "max_tokens": _LONGEST_OUTPUT, "messages": [{"role": "user", "content": text + mark}]}
        return "/v1/chat/completions", json.dumps(asked).encode()
    return "/v1/completions", json.dumps({**common, "max_tokens": 2048, "prompt": text + mark}).encode()


@lru_cache(maxsize=100_000)
def _block_text(block: int) -> str:
    unit = f"b{block} {_FILLER[block % 1000 : block % 1000 + 100]} "
    return (unit * (BLOCK_BYTES // len(unit) + 1))[:BLOCK_BYTES]
