"""Does nothing and says what it would have done: the default of a pool, and the way to try a policy."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

from autoscaler.action import Action, Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.actuator import Observation, Observed
from lb.clock import Clock

log = logging.getLogger(__name__)

_KEPT = 1000
"""Actions that are remembered for people: more than anybody reads, less than a megabyte."""


class DryRun:
    """Observes what `reported` tells, which is what somebody else runs; touches nothing."""

    def __init__(self, pool: str, clock: Clock, reported: Callable[[], Iterable[Observed]] = tuple) -> None:
        self._pool = pool
        self._clock = clock
        self._reported = reported
        self.actions: deque[Action] = deque(maxlen=_KEPT)
        """What was asked for, oldest first."""

    async def observe(self) -> Observation:
        """What is reported now; complete, as there is nobody who could not be asked."""
        return Observation(self._clock.monotonic(), tuple(self._reported()))

    async def apply(self, action: Action) -> None:
        """Remember it and say so."""
        self.actions.append(action)
        log.info("pool %s: would %s, because %s", self._pool, _would(action), action.reason)

    async def close(self) -> None:
        """Nothing is held."""


def _would(action: Action) -> str:
    match action:
        case ScaleUp():
            return f"start {', '.join(action.start_ids)} ({action.kind})"
        case Drain():
            return f"drain {action.replica} for at most {action.deadline_s:g} s"
        case Undrain():
            return f"take {action.replica} back"
        case Stop():
            return f"stop {action.replica}"
        case GiveUp():
            return f"give up the start of {action.replica or action.start_id}"
