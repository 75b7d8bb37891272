"""Stands for the request that a connection is opened for."""

from __future__ import annotations

from dataclasses import dataclass, field

from lb.effects import Outcome
from lb.proxy.upstream import UpstreamConnection


@dataclass
class Request:
    """Notes what it is told."""

    made: list[UpstreamConnection] = field(default_factory=list)
    failures: list[Outcome] = field(default_factory=list)

    def connected(self, connection: UpstreamConnection) -> None:
        self.made.append(connection)

    def connect_failed(self, outcome: Outcome) -> None:
        self.failures.append(outcome)

    def response_whole(self, connection: UpstreamConnection, lines: bytes, body: bytes) -> None: ...
    def response_data(self, connection: UpstreamConnection, head: bool, body: bytes, complete: bool) -> None: ...
    def upstream_lost(self, connection: UpstreamConnection, outcome: Outcome) -> None: ...
    def upstream_writable(self, writable: bool) -> None: ...
    def tunnel_data(self, data: bytes) -> None: ...
