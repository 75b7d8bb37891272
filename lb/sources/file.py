"""Replicas from a file that someone else writes (a deploy script, a service registry's template).

Looked at by its content every interval: inotify misses network file systems and the symlink swap of a Kubernetes
ConfigMap, and reading a small file once a second costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from lb.clock import Clock
from lb.decode import Finding, decode
from lb.endpoint import Endpoint, parse_url
from lb.errors import SettingsError
from lb.settings import BackendSettings, FileSource, Section
from lb.source import Push, SourceState, endpoint_of, unique
from lb.yaml_document import DocumentError, Node, read_document, read_file

log = logging.getLogger(__name__)


class _Listing(Section):
    """The file: a list of backends, or a mapping whose `backends` is one."""

    backends: tuple[BackendSettings, ...] = ()


class ReplicaFile:
    """One watched file. An unreadable or invalid one leaves the last good set in place."""

    def __init__(self, settings: FileSource, directory: Path, clock: Clock) -> None:
        self.name = f"file:{settings.path}"
        self.settings = settings
        self.state = SourceState()
        self._path = directory / settings.path
        self._interval_s = settings.interval_s
        self._clock = clock
        self._read: str | None = None

    async def run(self, push: Push) -> None:
        while True:
            self.look(push)
            await asyncio.sleep(self._interval_s)

    def look(self, push: Push) -> None:
        """Read once; push if the file holds another valid set than before."""
        try:
            text = read_file(self._path)
            if text != self._read:
                endpoints = parse_backends(text)
                push(endpoints)
                self._read = text
                self.state.endpoints = len(endpoints)
                log.info("replica file read", extra={"source": self.name, "replicas": len(endpoints)})
        except DocumentError as error:
            self._failed([problem.text(str(self._path)) for problem in error.problems])
        else:
            self.state.error = None
            self.state.refreshed_at = self._clock.monotonic()

    def _failed(self, messages: list[str]) -> None:
        message = "; ".join(messages[:5])
        if message != self.state.error:
            log.warning(
                "replica file refused, the last good set stays",
                extra={"source": self.name, "problems": len(messages), "error": message},
            )
        self.state.error = message


def parse_backends(text: str) -> tuple[Endpoint, ...]:
    """Endpoints from a file's text, each address once. Raises DocumentError with every problem."""
    root = read_document(text)
    if root.is_list:
        root = Node(root.line, items={"backends": root})
    listing = decode(_Listing, root, _check)
    return unique(endpoint_of(backend) for backend in listing.backends)


def _check(listing: _Listing) -> list[Finding]:
    findings = []
    for index, backend in enumerate(listing.backends):
        for field, url in (("url", backend.url), ("metrics_url", backend.metrics_url)):
            try:
                if url is not None:
                    parse_url(url)
            except SettingsError as error:
                findings.append(Finding(("backends", index, field), str(error)))
    return findings
