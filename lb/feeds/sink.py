"""What a feed needs of the gateway, and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lb.endpoint import Endpoint
from lb.runtime import ProbeResult, RuntimeLoad


class FeedSink(Protocol):
    """Where observations go. `lb.gateway.Gateway` is one."""

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The replicas that are wanted now."""

    def on_endpoints(self, callback: Callable[[tuple[Endpoint, ...]], None]) -> object:
        """Call back after each change of that set."""

    def observe_load(self, replica_id: str, load: RuntimeLoad) -> object:
        """A reading of the replica's own load."""

    def observe_load_failed(self, replica_id: str, reason: str) -> object:
        """A reading was due and brought nothing. One is no news; the balancer counts them."""

    def observe_probe(self, replica_id: str, probe: ProbeResult) -> object:
        """What a health probe found."""
