"""One run: fresh replicas, one proxy, one workload over real sockets."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.bench.processes import Mocks, cpu_s, free_ports, http_json, urls
from tests.bench.proxies import PROXIES
from tests.bench.proxy import Running, start
from tests.bench.routing.client import OpenLoop
from tests.bench.routing.outcome import Figures, figures
from tests.bench.routing.scenarios import REPLICAS, Change, Scenario
from tests.bench.routing.workload import Item

_PROCESSES = 2
"""The replicas share so many processes: each is far from using up a core, and fewer processes disturb less."""
_HEAD_START_S = 1.0
"""Wall seconds between the start of a proxy and the first request, for its probes."""


class Arena:
    """Starts and ends the processes of one scenario's runs."""

    def __init__(self, speed: float, patience_s: float, flush_s: float) -> None:
        self._speed = speed
        self._patience_s = patience_s
        self._flush_s = flush_s
        self._mocks = Mocks()
        self._addresses: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
        self._runs = 0

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mocks.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, name: str, scenario: Scenario, items: Sequence[Item], seed: int) -> tuple[Figures, float]:
        """One proxy, one workload; also the CPU seconds that the proxy used."""
        self._fresh_replicas(scenario)
        port, admin_port = free_ports(2)
        self._runs += 1
        proxy = start(PROXIES[name](), port, admin_port, urls(self._addresses), self._folder / f"{name}-{self._runs}")
        try:
            before = cpu_s(proxy.pid)
            measured = self._play(scenario, items, [proxy.port] * len(items), seed, proxy)
            return measured, cpu_s(proxy.pid) - before
        finally:
            proxy.stop()

    def run_direct(self, scenario: Scenario, items: Sequence[Item], chosen: Sequence[int], seed: int) -> Figures:
        """Each request straight to the replica that somebody chose beforehand."""
        self._fresh_replicas(scenario)
        ports = [int(address.rpartition(":")[2]) for address in self._addresses]
        return self._play(scenario, items, [ports[index] for index in chosen], seed, None)

    def _fresh_replicas(self, scenario: Scenario) -> None:
        self._mocks.stop()
        options = ["--speed", str(self._speed), "--flush", f"{self._flush_s * 1000:g}ms"]
        options += ["--kv-tokens", str(scenario.kv_tokens), *(["--prefix-cache"] if scenario.prefix_cache else [])]
        self._addresses = []
        for _ in range(_PROCESSES):
            self._addresses += self._mocks.start(REPLICAS // _PROCESSES, *options)
        for replica, factor in scenario.slow.items():
            self._set_fault(Change(0, replica, {"kind": "slow", "factor": factor}))

    def _set_fault(self, change: Change) -> None:
        http_json(self._addresses[change.replica], "POST", "/mock/fault", change.fault)

    def _play(
        self, scenario: Scenario, items: Sequence[Item], ports: Sequence[int], seed: int, proxy: Running | None
    ) -> Figures:
        client_runs = asyncio.run(self._play_on_loop(scenario, items, ports, seed))
        states = [http_json(address, "GET", "/mock/state") for address in self._addresses]
        queried = sum(state["prefix_query_tokens"] for state in states)
        hits = sum(state["prefix_hit_tokens"] for state in states)
        return figures(
            items,
            client_runs.outcomes,
            scenario.warm_s,
            hit_ratio=hits / queried if queried else None,
            spread=tuple(state["requests"] for state in states),
            replica_late_max_s=max(state["late_s_max"] for state in states) * self._speed,
        )

    async def _play_on_loop(
        self, scenario: Scenario, items: Sequence[Item], ports: Sequence[int], seed: int
    ) -> OpenLoop:
        client = OpenLoop(items, ports, self._speed, self._patience_s, seed)
        zero = time.monotonic() + _HEAD_START_S
        changes = asyncio.create_task(self._change(scenario.changes, zero), name="changes")
        try:
            await client.run(zero)
        finally:
            changes.cancel()
        return client

    async def _change(self, changes: Sequence[Change], zero: float) -> None:
        for change in changes:
            # A change at 0 happens before the first request.
            due = zero - _HEAD_START_S / 2 if change.at_s == 0 else zero + change.at_s / self._speed
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.to_thread(self._set_fault, change)
