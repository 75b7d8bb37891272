"""Settings of the election among controllers that watch over the same pools."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from lb.settings.durations import Seconds
from lb.settings.proxy import Section

LONGEST_LEASE_S = 60.0
"""No lease runs longer. A record that claims more is not a controller's, and must not lock all of them out."""


class LeaseSettings(Section):
    """A lease that one controller holds at a time. The defaults are those of the Kubernetes control plane (15/10/2)."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")] = "tidegate"
    """Name of the Lease object. Controllers with the same name are one group, of which one acts."""
    namespace: Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$")] = ""
    """Namespace of the Lease object; empty: that of the pod."""
    duration_s: Annotated[Seconds, Field(ge=1, le=LONGEST_LEASE_S)] = 15.0
    """How long the others wait after the last renewal that they saw before one of them takes over. Whole seconds, as
    the object has it."""
    fence_s: Annotated[Seconds, Field(gt=0)] = 10.0
    """How long after sending its last successful renewal the holder may act. What lies between this and `duration` is
    for calls that are already under way, and for clocks that run at different speeds."""
    retry_s: Annotated[Seconds, Field(ge=0.05)] = 2.0
    """Between renewals, and between looks of those that wait."""

    @model_validator(mode="after")
    def _order(self) -> LeaseSettings:
        if self.duration_s != int(self.duration_s):
            raise ValueError(f"duration = {self.duration_s:g}s must be whole seconds")
        if not 2 * self.retry_s <= self.fence_s < self.duration_s:
            raise ValueError(
                f"fence = {self.fence_s:g}s must be at least twice retry = {self.retry_s:g}s (so that one renewal may "
                f"fail) and less than duration = {self.duration_s:g}s"
            )
        return self

    @property
    def call_s(self) -> float:
        """Longest time that one write of the holder may take: less than what lies between fence and takeover."""
        return 0.8 * (self.duration_s - self.fence_s)
