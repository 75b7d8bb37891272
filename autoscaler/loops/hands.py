"""One pool's actuator, called so that nothing it does can hurt: deadlines, one call at a time, repeats that wait.

An actuator that hangs is left hanging and not asked again until it has ended; what it was asked to do is asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from autoscaler.action import Action, Drain, GiveUp, ScaleUp, Stop, Undrain
from autoscaler.actuator import Actuator, ActuatorError, Observation

log = logging.getLogger(__name__)

T = TypeVar("T")
OBSERVE_S = 12.0
"""Actuators end within ten seconds by themselves; what takes longer has forgotten to."""
APPLY_S = 30.0
"""An action need only be begun."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one action."""

    action: Action
    error: str = ""
    """Empty: it was carried out, or begun."""


class Hands:
    """`now`: monotonic seconds. `observe_s` and `apply_s` are the deadlines of one call."""

    def __init__(
        self,
        pool: str,
        actuator: Actuator,
        now: Callable[[], float],
        *,
        observe_s: float = OBSERVE_S,
        apply_s: float = APPLY_S,
    ) -> None:
        self.pool = pool
        self._observe_s = observe_s
        self._apply_s = apply_s
        self.actuator = actuator
        self.error = ""
        """Why the last look failed; empty: it did not."""
        self._now = now
        self._stuck: asyncio.Task[Any] | None = None
        self._stuck_since = 0.0
        self._rest: dict[tuple[object, ...], float] = {}
        """Actions that failed with a wish for a pause, and until when."""
        self._again: list[ScaleUp] = []
        """Starts that failed. The controller takes them for asked for; all else it asks for again by itself."""

    @property
    def stuck(self) -> bool:
        """A call has not ended that was given up."""
        return self._stuck is not None and not self._stuck.done()

    async def observe(self) -> Observation | None:
        """What is there; None: it could not be seen, and `error` says why."""
        try:
            seen = await self._call("look", self.actuator.observe(), self._observe_s)
        except ActuatorError as error:
            if str(error) != self.error:
                log.warning("pool %s: its replicas cannot be seen", self.pool, extra={"reason": str(error)})
            self.error = str(error)
            return None
        if self.error:
            log.info("pool %s: its replicas can be seen again", self.pool)
        self.error = ""
        return seen

    def wanted(self, actions: Iterable[Action], open_starts: Iterable[str]) -> list[Action]:
        """What to do in this tick: the controller's actions and starts that failed before and are still wanted, less
        those that asked for a pause."""
        now = self._now()
        still = frozenset(open_starts)
        self._rest = {key: until for key, until in self._rest.items() if until > now}
        asked = list(actions)
        fresh = {name for one in asked if isinstance(one, ScaleUp) for name in one.start_ids}
        again: list[Action] = []
        waiting: list[ScaleUp] = []
        for one in self._again:
            names = tuple(name for name in one.start_ids if name in still and name not in fresh)
            if names:
                left = ScaleUp(one.pool, one.kind, names, one.total, one.reason)
                (waiting if _key(left) in self._rest else again).append(left)
        self._again = waiting
        due = [*again, *asked]
        held = [one for one in due if _key(one) in self._rest]
        self._again += [one for one in held if isinstance(one, ScaleUp)]
        return [one for one in due if _key(one) not in self._rest]

    async def apply(self, action: Action) -> Applied:
        """Carry out one action, or say why not."""
        try:
            await self._call(name_of(action), self.actuator.apply(action), self._apply_s)
        except ActuatorError as error:
            if error.retry_after_s is not None:
                self._rest[_key(action)] = self._now() + error.retry_after_s
            self.put_off(action)
            return Applied(action, str(error))
        return Applied(action)

    def put_off(self, action: Action) -> None:
        """It was not done in this tick; a start is asked for again in the next."""
        if isinstance(action, ScaleUp):
            self._again.append(action)

    async def close(self) -> None:
        """Let go; the replicas stay."""
        try:
            await self._call("close", self.actuator.close(), self._observe_s)
        except ActuatorError as error:
            log.warning("pool %s: its actuator does not let go", self.pool, extra={"reason": str(error)})

    async def _call(self, what: str, work: Coroutine[object, object, T], deadline_s: float) -> T:
        if self.stuck:
            work.close()
            raise ActuatorError(
                f"it has not answered for {self._now() - self._stuck_since:.0f} s and is not asked again"
            )
        self._stuck = None
        began = self._now()
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=deadline_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            task.add_done_callback(_ended)
            self._stuck, self._stuck_since = task, began
            raise ActuatorError(f"no answer within {deadline_s:g} s ({what})")
        try:
            return task.result()
        except ActuatorError:
            raise
        except Exception as error:
            log.exception("pool %s: a fault in its actuator (%s)", self.pool, what)
            raise ActuatorError(f"a fault in the actuator: {type(error).__name__}: {error}") from error


def name_of(action: Action) -> str:
    """For logs and metrics."""
    match action:
        case ScaleUp():
            return "scale_up"
        case Drain():
            return "drain"
        case Undrain():
            return "undrain"
        case Stop():
            return "stop"
        case GiveUp():
            return "give_up"


def _key(action: Action) -> tuple[object, ...]:
    """What makes two actions the same."""
    if isinstance(action, ScaleUp):
        return ("scale_up", action.kind)
    if isinstance(action, GiveUp):
        return ("give_up", action.start_id, action.replica)
    return (name_of(action), action.replica)


def _ended(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.info("a call that was given up has ended with an error", extra={"reason": str(task.exception())})
