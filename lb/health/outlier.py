"""Passive health: faults of real requests in a row eject a replica for a time that doubles."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from lb.settings import HealthSettings

REFUSED_WINDOW_S = 5.0
"""Two refused connections within this time are no accident; further apart they may be two restarts."""
REFUSED_COUNT = 2


@dataclass(slots=True)
class Outlier:
    """Faults of one replica's requests."""

    faults: int = 0
    """In a row."""
    server_errors: int = 0
    """Of these, answers with a 5xx status."""
    ejections: int = 0
    """Recent ones: the exponent of the next duration."""
    ejected_until: float = -inf
    healthy_since: float = 0.0
    refused: int = 0
    refused_at: float = -inf

    def success(self) -> None:
        if self.faults:
            self.faults = self.server_errors = 0
        if self.refused:
            self.refused = 0

    def fault(self, *, server_error: bool) -> None:
        self.faults += 1
        if server_error:
            self.server_errors += 1

    def forgive(self) -> None:
        """Take back a server error that another replica answered with as well: the request was at fault."""
        if self.server_errors:
            self.server_errors -= 1
            self.faults -= 1

    def refusal(self, now: float) -> bool:
        """A connection was refused; True: nobody listens there."""
        self.refused = self.refused + 1 if now - self.refused_at <= REFUSED_WINDOW_S else 1
        self.refused_at = now
        return self.refused >= REFUSED_COUNT

    def eject(self, now: float, settings: HealthSettings) -> float:
        """Start an ejection and return its end. Each doubles the last, unless it stayed healthy for long in between."""
        if self.ejections and now - self.healthy_since > 10.0 * self.duration_s(settings, self.ejections - 1):
            self.ejections = 0
        self.ejected_until = now + self.duration_s(settings, self.ejections)
        self.ejections += 1
        self.faults = self.server_errors = 0
        return self.ejected_until

    @staticmethod
    def duration_s(settings: HealthSettings, ejections: int) -> float:
        return min(settings.ejection_max_s, settings.ejection_s * 2.0 ** min(ejections, 30))


def may_eject(ejected: int, members: int, settings: HealthSettings) -> bool:
    """Whether one more of a pool's members may be ejected; the only one never is, and it may not leave none."""
    return ejected + 1 <= min(int(members * settings.max_ejected_ratio), members - 1)
