"""A forecast process that answers as told, and the loop around it. Time is a value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from autoscaler.forecast_wire import Answer, Ask, Setup
from autoscaler.loops.forecast_process import ForecastProcessError
from autoscaler.loops.forecasting import SETTLE_S, ForecastLoop, Plan
from autoscaler.policy.pools import PoolSettings
from forecaster.history import History, Row
from forecaster.quantiles import Forecast
from lb.clock import Clock

WALL = 1_700_000_100.0 // 300 * 300
"""The end of a bin."""


def made(end_s: float, value: float = 600.0, **fields: Any) -> Forecast:
    """What a process could say: `value` a bin of five minutes."""
    known: dict[str, Any] = {
        "made_at_s": int(end_s), "step_s": 300, "horizons_s": (300.0, 3600.0), "quantiles": (0.5, 0.9),
        "values": ((value, 2 * value),) * 2, "model": "stack", "reason": "", "score_ratio": 0.5,
        "coverage": (0.5, 0.9), "trusted": True, "trust_reason": "it was right",
    }  # fmt: skip
    return Forecast(**{**known, **fields})


@dataclass
class FakeProcess:
    """One life of the process; what it answers is the world's."""

    world: World
    setup: Setup
    closed: bool = False

    async def start(self) -> Answer:
        self.world.lives.append(self)
        if self.world.fail_start:
            raise ForecastProcessError("cannot be started: no")
        return Answer(problems=self.world.problems)

    async def ask(self, ask: Ask, limit_s: float) -> Answer:
        assert not self.closed
        self.world.asked.append((ask, limit_s))
        answer = self.world.answer(ask)
        if self.world.hang is not None:
            await self.world.hang.wait()
        if isinstance(answer, Exception):
            raise answer
        await asyncio.sleep(0)
        return replace(answer, problems=self.world.problems)

    async def close(self) -> None:
        self.closed = True


def good(ask: Ask) -> Answer | Exception:
    return Answer(made(ask.series.end_s))


@dataclass
class World:
    """A history, clocks, and a process that answers as told."""

    now: float = 5000.0
    offset: float = WALL + SETTLE_S - 5000.0
    history: History = field(default_factory=History)
    asked: list[tuple[Ask, float]] = field(default_factory=list)
    lives: list[FakeProcess] = field(default_factory=list)
    answer: Callable[[Ask], Answer | Exception] = good
    problems: tuple[str, ...] = ()
    fail_start: bool = False
    hang: asyncio.Event | None = None
    """Set: every answer waits for it."""

    @property
    def wall(self) -> float:
        return self.now + self.offset

    def known(self, minutes: int, model: str = "m", until_s: float | None = None, value: float = 10.0) -> None:
        """This many minutes of demand up to now."""
        end = int((self.wall if until_s is None else until_s) // 60) * 60
        rows = [Row(model, end - 60 * (one + 1), value, 100 * value, 7 * value) for one in range(minutes)]
        assert self.history.load(rows, now_s=self.wall) == minutes

    def loop(self, *pools: PoolSettings, **plan: Any) -> ForecastLoop:
        clock = Clock(lambda: self.now, lambda: self.wall)
        return ForecastLoop(
            self.history, clock, Plan(pools=pools or (PoolSettings(name="a"),), **plan),
            process=lambda setup: FakeProcess(self, setup),  # type: ignore[arg-type, return-value]
        )  # fmt: skip

    async def later(self, loop: ForecastLoop, seconds: float = 300.0, *, demand: bool = True) -> None:
        self.now += seconds
        if demand:
            self.known(int(seconds // 60))
        await loop.look()
