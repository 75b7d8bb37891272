"""Hysteresis over health probes: one sample is not a fact."""

from __future__ import annotations

from dataclasses import dataclass

from lb.runtime import ProbeStatus
from lb.settings import HealthSettings


@dataclass(slots=True)
class ProbeCount:
    """Good and failed probes in a row of one replica."""

    good: int = 0
    failed: int = 0
    last: ProbeStatus | None = None
    ever_ready: bool = False

    def observe(self, status: ProbeStatus, settings: HealthSettings) -> ProbeStatus | None:
        """Take in one probe. READY or FAILED when enough came in a row; LOADING at once, as it is a statement.

        A replica that was never ready needs a single good probe: there is no doubt yet to outweigh.
        """
        self.last = status
        if status is ProbeStatus.READY:
            self.failed = 0
            self.good += 1
            if self.good >= (settings.rise if self.ever_ready else 1):
                self.ever_ready = True
                return ProbeStatus.READY
            return None
        self.good = 0
        if status is ProbeStatus.LOADING:
            self.failed = 0
            return ProbeStatus.LOADING
        self.failed += 1
        return ProbeStatus.FAILED if self.failed >= settings.fall else None

    def doubt(self, settings: HealthSettings) -> None:
        """Requests found it dead between two probes: one good probe from now on brings it back."""
        self.failed = 0
        self.good = settings.rise - 1
