"""The two clocks a shell hands to the core. The core itself never reads one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`monotonic()` in seconds for every deadline; `wall()` in epoch seconds for people and seasonality only."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


SYSTEM_CLOCK = Clock(monotonic=time.monotonic, wall=time.time)
