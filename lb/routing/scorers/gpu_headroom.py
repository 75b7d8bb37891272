"""What the GPU itself says. Neutral until a reading exists."""

from __future__ import annotations

from lb.replica import GpuState, Replica
from lb.routing.form import NO_FORM, Form
from lb.settings import RoutingSettings

LOW_RATIO = 0.02
"""Free GPU memory below which an allocation may fail. Runtimes reserve up to 95 % on purpose, so less than that says
nothing."""
LOW_S = 1.0
"""Cost with no free memory at all: a second is what a failed allocation and its recovery take."""
DEGRADED_RATIO = 0.25
"""Slowness assumed of a degraded card that does not tell its clock; a told clock derates the speed model itself."""


class GpuHeadroom:
    """1 s * (1 - h/0.02) for free memory h below 2 %; own times * 0.25 for a degraded card of unknown clock."""

    live = False
    own = True

    def form(self, replica: Replica, settings: RoutingSettings, now: float) -> Form:
        gpu = replica.gpu
        if gpu is None:
            return NO_FORM
        low_s = 0.0
        if gpu.headroom_ratio is not None and gpu.headroom_ratio < LOW_RATIO:
            low_s = LOW_S * (1.0 - max(0.0, gpu.headroom_ratio) / LOW_RATIO)
        if gpu.state is not GpuState.DEGRADED or gpu.speed_ratio is not None:
            return (low_s, 0.0, 0.0, 0.0, 0.0, 0.0)
        pace, slower = replica.pace, DEGRADED_RATIO
        return (low_s, pace.token_s * slower, pace.token2_s * slower, pace.step_s * slower, 0.0, 0.0)
