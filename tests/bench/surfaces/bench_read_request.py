"""Time of reading a request body and of the per-chunk work: `python tests/bench/surfaces/bench_read_request.py`.

Bars: read_request of a chat body of 1.5 KB <= 4 us, 32 KB <= 40 us, 400 KB <= 500 us; events_in <= 0.3 us.
"""

from __future__ import annotations

import json
import random
import sys
import timeit
from collections.abc import Callable

from lb.paths import PathTable
from lb.request import RequestInfo, SurfaceName
from lb.settings import PathSettings
from lb.surfaces import SURFACES
from lb.surfaces.progress import events_in

BARS_US = {1_500: 4.0, 32_000: 40.0, 400_000: 500.0}
EVENT = (
    b'data: {"id":"chatcmpl-8c25db684ec011d8","object":"chat.completion.chunk","created":1795198683,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":"abcd"},"logprobs":null,"finish_reason":null}]}\n\n'
)


def chat_body(size: int, seed: int = 1) -> bytes:
    """A conversation of about `size` bytes in turns of 1.5 KB, words and line breaks."""
    choose = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(choose.choice(letters) for _ in range(choose.randint(2, 9))) for _ in range(400)]
    turns, text = [], ""
    while sum(map(len, turns)) + len(text) < size - 150:
        text += choose.choice(words) + (" " if choose.random() < 0.95 else "\n")
        if len(text) > 1400:
            turns.append(text)
            text = ""
    turns.append(text)
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return json.dumps({"model": "tiny", "messages": messages, "max_tokens": 200, "stream": True}).encode()


def best_us(work: Callable[[], object], number: int) -> float:
    """Best of seven runs: the machine's other work only ever adds."""
    return min(timeit.repeat(work, number=number, repeat=7)) / number * 1e6


def main() -> int:
    chat = SURFACES[SurfaceName.CHAT]
    failed = False
    for size, bar_us in BARS_US.items():
        body = chat_body(size)
        info = RequestInfo("r")
        took_us = best_us(lambda body=body, info=info: chat.read_request(body, info), max(20, 4_000_000 // size))
        failed = failed or took_us > bar_us
        print(f"read_request {len(body):>7} B  {took_us:8.2f} us  (bar {bar_us:g} us)")
    took_us = best_us(lambda: events_in(EVENT), 20_000)
    failed = failed or took_us > 0.3
    print(f"events_in    {len(EVENT):>7} B  {took_us:8.2f} us  (bar 0.3 us)")
    table = PathTable(PathSettings())
    print(f"paths.match              {best_us(lambda: table.match('POST', '/v1/chat/completions'), 20_000):8.2f} us")
    tail = EVENT * 60
    print(f"read_usage, none {len(tail)} B  {best_us(lambda: chat.read_usage(tail), 2000):8.2f} us")
    end = tail + EVENT.replace(b"null}]", b'"stop"}]') + b"data: [DONE]\n\n"
    print(f"stream_end, complete     {best_us(lambda: chat.stream_end(end), 2000):8.2f} us")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
