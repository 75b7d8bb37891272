"""Where the comparison takes place: instant replicas, and proxies that take turns before them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.bench.processes import Mocks, free_ports, urls
from tests.bench.proxies import PROXIES
from tests.bench.proxy import MissingPeerError, Running, start


class Field:
    """Starts and ends the processes of one benchmark."""

    def __init__(self) -> None:
        self._mocks = Mocks()
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
        self._started = 0

    def __enter__(self) -> Field:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mocks.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def say(self, line: str) -> None:
        """Progress, on standard error."""
        sys.stderr.write(f"{line}\n")

    def available(self, names: Sequence[str]) -> list[str]:
        """The proxies that can be run here; says which cannot and why."""
        found = []
        for name in names:
            try:
                PROXIES[name]().prepare()
                found.append(name)
            except MissingPeerError as error:
                self.say(f"LEFT OUT {name}: {error}")
        return found

    def instant(self, count: int, interval_s: float = 0.02) -> list[str]:
        """URLs of fresh instant replicas, two processes' worth; the replicas before are ended."""
        self._mocks.stop()
        options = ("--instant", "--stream-interval", f"{interval_s * 1000:.3f}ms", "--kv-tokens", "100000000")
        first = count // 2
        return urls([*self._mocks.start(first, *options), *self._mocks.start(count - first, *options)])

    @contextmanager
    def running(self, name: str, backends: Sequence[str]) -> Iterator[Running]:
        """A proxy for the time of a `with`."""
        self._started += 1
        port, admin_port = free_ports(2)
        proxy = start(PROXIES[name](), port, admin_port, backends, self._folder / f"{name}-{self._started}")
        try:
            yield proxy
        finally:
            proxy.stop()
