"""CPU time of one decision: `offer` + `first_byte` + `finish`, at 4 to 200 replicas.

    .venv/bin/python tests/bench/brain/hot_path.py [--profile]

Closed loop with `--open` requests in flight per replica; CPU time of this process, best of five rounds.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import random
import time
from collections import deque
from pathlib import Path

from lb.balancer import Balancer
from lb.effects import Outcome, Routed, Ticket
from lb.endpoint import Endpoint
from lb.request import RequestInfo, SurfaceName, Usage
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import LbSettings


def make(replicas: int) -> Balancer:
    balancer = Balancer(LbSettings(), rng=random.Random(1), now=0.0)
    balancer.set_endpoints([Endpoint(f"r{i}", "10.0.0.1", 8000 + i, models=("m",)) for i in range(replicas)], 0.0)
    for i in range(replicas):
        balancer.observe_probe(f"r{i}", ProbeResult(ProbeStatus.READY), 0.0)
    return balancer


def info(number: int, stream: bool, prefix: tuple[int, ...]) -> RequestInfo:
    return RequestInfo(
        id=f"req-{number}", surface=SurfaceName.CHAT, model="m", body_bytes=1500, prompt_bytes=1200, max_tokens=256,
        stream=stream, prefix=prefix,
    )  # fmt: skip


def run(balancer: Balancer, requests: int, open_requests: int, stream: bool, blocks: int) -> float:
    """CPU microseconds per request."""
    usage = Usage(300, 100)
    rng = random.Random(3)
    flying: deque[Ticket] = deque()
    prefixes = [tuple(rng.getrandbits(60) for _ in range(blocks)) for _ in range(64)]
    infos = [info(i, stream, prefixes[rng.randrange(64)]) for i in range(requests)]
    now = 1.0
    began = time.process_time()
    for one in infos:
        now += 0.002
        decision = balancer.offer(one, now)
        assert isinstance(decision, Routed)
        flying.append(decision.ticket)
        if len(flying) > open_requests:
            done = flying.popleft()
            if stream:
                balancer.first_byte(done, now)
                done.events = 100
                done.progress_at = now
            done.bytes_out = 2000
            balancer.finish(done, Outcome.OK, now, status=200, usage=usage)
    took = time.process_time() - began
    while flying:
        balancer.finish(flying.popleft(), Outcome.OK, now, status=200, usage=usage)
    return took / requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--open", type=int, default=4, help="requests in flight per replica")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for replicas in (4, 16, 64, 65, 200):
        row: dict[str, float] = {"replicas": replicas}
        for name, stream, blocks in (("unary", False, 0), ("stream", True, 0), ("stream, 16 blocks", True, 16)):
            balancer = make(replicas)
            run(balancer, 500, args.open * replicas, stream, blocks)
            row[name] = min(run(balancer, args.requests, args.open * replicas, stream, blocks) for _ in range(5))
        rows.append(row)
        print(
            "  ".join(
                f"{key}: {value:8.2f}" if key != "replicas" else f"{value:4.0f} replicas" for key, value in row.items()
            )
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    if args.profile:
        balancer = make(4)
        profile = cProfile.Profile()
        profile.runcall(run, balancer, 20000, 16, True, 0)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
