"""What a tick came to, told: a line in the log where something is new, a record for the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from autoscaler.decide.decision import Decision, sentence
from autoscaler.decide.outlook import Outlook
from autoscaler.loops.hands import Applied, name_of
from autoscaler.policy.pools import Mode
from autoscaler.store import StoredDecision

log = logging.getLogger(__name__)

REPEAT_TICKS = 20
"""What goes on unchanged is said again after five minutes at the usual interval, so that a log that is looked at shows
what goes on."""


@dataclass(slots=True)
class _Last:
    news: tuple[object, ...] = ()
    ago: int = 0


class Telling:
    """One line per pool that has news, the rest at debug level."""

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}

    def say(self, decision: Decision, fault: str, applied: Sequence[Applied]) -> bool:
        """Log one decision. `fault`: what the loop itself met. Returns whether it was news."""
        last = self._last.setdefault(decision.pool, _Last())
        news = (decision.desired, decision.mode, decision.fault, fault) if _speaks(decision) else (decision.mode, fault)
        acted = any(not one.error for one in applied)
        fresh = news != last.news or acted
        last.ago = 0 if fresh else last.ago + 1
        last.news = news
        faulty = bool(decision.fault or fault)
        text = sentence(decision) + (f"; FAULT {fault}" if fault else "")
        wishes = bool(decision.change) and _speaks(decision)
        loud = fresh or (last.ago % REPEAT_TICKS == 0 and (faulty or wishes))
        log.log(logging.INFO if loud else logging.DEBUG, "%s", text)
        return fresh

    def forget(self, pools: Sequence[str]) -> None:
        """Pools that are no more."""
        for pool in pools:
            self._last.pop(pool, None)


def _speaks(decision: Decision) -> bool:
    """A pool that is only observed has no say in sizes."""
    return decision.mode is not Mode.OBSERVE


def record(
    decision: Decision,
    applied: Sequence[Applied],
    outlook: Outlook | None,
    stages: Mapping[str, object],
    fault: str,
    *,
    wall: float,
    notable: bool,
) -> StoredDecision:
    """Everything that `explain` shows of one decision."""
    text = sentence(decision)
    told: dict[str, object] = {
        **_finite(decision.record()),
        "at": wall,
        "loop_fault": fault,
        "actions": [
            {"action": name_of(one.action), "reason": one.action.reason, "error": one.error, "about": _about(one)}
            for one in applied
        ],
        "forecast": None
        if outlook is None
        else {"model": outlook.model, "trusted": outlook.trusted, "reason": outlook.reason},
        "start_stages": dict(stages),
    }
    return StoredDecision(decision.pool, wall, text, told, notable)


def _finite(values: Mapping[str, object]) -> dict[str, object]:
    """JSON knows no infinity: such numbers are null."""
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return _finite(value)
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _about(one: Applied) -> str:
    """The replicas of an action."""
    action = one.action
    names = getattr(action, "start_ids", None) or (getattr(action, "replica", None), getattr(action, "start_id", None))
    return ", ".join(name for name in dict.fromkeys(names) if name)
