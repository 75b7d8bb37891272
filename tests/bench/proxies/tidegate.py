"""Tidegate as shipped: every feature on, no file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


class Tidegate:
    """`strategy` other than `tidegate` is one of its own comparison strategies."""

    ready_path = "/v1/models"

    def __init__(self, name: str, strategy: str) -> None:
        self.name = name
        self._strategy = strategy

    def prepare(self) -> None:
        """It is this checkout."""

    def command(self, port: int, spare_port: int, backends: Sequence[str], folder: Path) -> list[str]:
        named = [part for url in backends for part in ("--backend", url)]
        return [
            sys.executable, "-m", "autoscaler", "lb", "--listen", f"127.0.0.1:{port}", "--admin",
            f"127.0.0.1:{spare_port}", "--strategy", self._strategy, *named,
        ]  # fmt: skip
