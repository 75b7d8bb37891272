"""Who waits, how long, and who is told at once that waiting is of no use."""

from __future__ import annotations

from lb.admission.limits import misses_deadline, wait_deadline
from lb.admission.queue import WaitQueue

__all__ = ["WaitQueue", "misses_deadline", "wait_deadline"]
