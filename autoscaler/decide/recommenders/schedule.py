"""Floors at known times of the wall clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from autoscaler.decide.recommender import Proposal, Situation
from autoscaler.policy.pools import PoolSettings, ScheduleEntry

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Schedule:
    """All entries of a pool; the highest that is in force counts."""

    def __init__(self, settings: PoolSettings) -> None:
        self._entries = settings.schedule
        self._patience_s = settings.down.drain_s + settings.down.payback_s

    def propose(self, situation: Situation) -> Proposal:
        if not self._entries:
            return Proposal("schedule", 0.0, 0.0, "no schedule")
        if situation.wall is None:
            return Proposal("schedule", 0.0, None, "the wall clock is not known")
        ahead_s = situation.lead.p95_s
        want = self._most(situation.wall, ahead_s)
        keep = max(want, self._most(situation.wall, ahead_s + self._patience_s))
        return Proposal("schedule", want, keep, f"{want:g} within the lead time, {keep:g} soon after")

    def _most(self, wall: float, ahead_s: float) -> float:
        """Highest floor that holds at any time from `wall` to `ahead_s` later."""
        return max((float(one.replicas) for one in self._entries if _touches(one, wall, wall + ahead_s)), default=0.0)


def _touches(entry: ScheduleEntry, begin: float, end: float) -> bool:
    """Whether the entry is in force at any instant of [begin, end] (epoch seconds).

    Local times are taken day by day, so that a day with a clock change has its own length. A time that a change skips
    or repeats is the one before the change (`fold=0`).
    """
    zone = entry.tz
    day = datetime.fromtimestamp(begin, UTC).astimezone(zone).date() - timedelta(days=1)
    last = datetime.fromtimestamp(end, UTC).astimezone(zone).date()
    hours, minutes = map(int, entry.start.split(":"))
    until_hours, until_minutes = map(int, entry.end.split(":"))
    over_night = (until_hours, until_minutes) <= (hours, minutes)
    while day <= last:
        if not entry.days or _DAYS[day.weekday()] in entry.days:
            start = datetime(day.year, day.month, day.day, hours, minutes, tzinfo=zone).timestamp()
            close = day + timedelta(days=1) if over_night else day
            stop = datetime(close.year, close.month, close.day, until_hours, until_minutes, tzinfo=zone).timestamp()
            if start <= end and begin < stop:
                return True
        day += timedelta(days=1)
    return False
