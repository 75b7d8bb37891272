"""vllm-router from PyPI, as shipped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.proxy import need_router


class VllmRouter:
    ready_path = "/readiness"

    def __init__(self, name: str, policy: str) -> None:
        self.name = name
        self._policy = policy

    def prepare(self) -> None:
        need_router("vllm-router")

    def command(self, port: int, spare_port: int, backends: Sequence[str], folder: Path) -> list[str]:
        return [
            str(need_router("vllm-router")), "--host", "127.0.0.1", "--port", str(port), "--worker-urls", *backends,
            "--policy", self._policy, "--prometheus-port", str(spare_port), "--prometheus-host", "127.0.0.1",
            "--log-level", "error", "--max-concurrent-requests", "20000",
        ]  # fmt: skip
