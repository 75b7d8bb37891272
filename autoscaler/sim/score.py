"""What a run in the plant came to."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.sim.roster import Roster

UNSCORED_S = 900.0
"""The first 15 minutes are not scored: every policy starts with a guess."""
WINDOW_S = 900


@dataclass(frozen=True, slots=True)
class Score:
    """One policy with one knob on one load."""

    policy: str
    knob: float
    seed: int
    hours: float
    """Scored."""
    gpu_hours: float
    misses: float
    """Share of requests past the objective, refused ones included."""
    refused: float
    worst_window: float
    """Share of misses in the worst 15 minutes."""
    delay_s: float
    """Mean time to first token beyond that on an idle replica; refused requests count with their wait."""
    requests: int
    actions_per_day: float
    reversals_per_day: float
    wasted: int
    killed: int
    most_replicas: int
    schedule: tuple[tuple[float, int], ...] = ()


class Tally:
    """Counts requests while a run goes on."""

    def __init__(self, window_s: int = WINDOW_S) -> None:
        self._window_s = window_s
        self.offered = 0.0
        self.missed = 0.0
        self.refused = 0.0
        self.delay_s = 0.0
        self.windows: dict[int, list[float]] = {}
        """(offered, missed, seconds of delay) by window, counted from second 0 of what is played."""

    def add(self, now: float, offered: float, missed: float, refused: float = 0.0, delay_s: float = 0.0) -> None:
        """Requests that came at `now`; `delay_s` is the sum of their delays."""
        if now < UNSCORED_S:
            return
        self.offered += offered
        self.missed += missed
        self.refused += refused
        self.delay_s += delay_s
        window = self.windows.setdefault(int(now) // self._window_s, [0.0, 0.0, 0.0])
        window[0] += offered
        window[1] += missed
        window[2] += delay_s

    def score(self, policy: str, knob: float, roster: Roster, end: float) -> Score:
        days = max(end - UNSCORED_S, 1.0) / 86_400.0
        offered = max(self.offered, 1.0)
        return Score(
            policy=policy,
            knob=knob,
            seed=roster.seed,
            hours=(end - UNSCORED_S) / 3600.0,
            gpu_hours=roster.billed_until(end) / 3600.0,
            misses=self.missed / offered,
            refused=self.refused / offered,
            worst_window=max((missed / max(came, 1.0) for came, missed, _ in self.windows.values()), default=0.0),
            delay_s=self.delay_s / offered,
            requests=int(self.offered),
            actions_per_day=roster.actions / days,
            reversals_per_day=roster.reversals / days,
            wasted=roster.wasted,
            killed=roster.killed,
            most_replicas=max((count for _, count in roster.schedule), default=0),
            schedule=tuple(roster.schedule),
        )
