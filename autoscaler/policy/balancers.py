"""Settings of the balancers elsewhere whose demand a controller sizes pools by."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lb.settings.durations import Seconds
from lb.settings.proxy import Section


class BalancersSettings(Section):
    """Tidegates that balance: one, or all that a name stands for."""

    url: Annotated[str, Field(max_length=2000)]
    """Admin API, http://host:port. Every address of the host is one balancer: in Kubernetes, a headless Service."""
    token: str | None = None
    """Secret reference (`env:NAME` or `file:NAME`) of their admin token; they need one, as they listen beyond
    loopback."""
    timeout_s: Annotated[Seconds, Field(gt=0, le=60)] = 4.0
    """Longest wait for one answer. They answer in milliseconds; a quarter of the usual interval forgives a busy one."""
