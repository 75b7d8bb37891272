"""Forecasts of every pool: new bins go to the process that computes, quantiles come back, the control loop reads them.

Nothing that the process does reaches the control loop but a forecast or the reason why there is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autoscaler.decide.outlook import Outlook
from autoscaler.forecast_wire import Answer, Ask, Setup
from autoscaler.loops.demand import models_of
from autoscaler.loops.forecast_process import ForecastProcess, ForecastProcessError
from autoscaler.metrics import ForecastState
from autoscaler.outlooks import aged, nothing, outlook_of, pooled
from autoscaler.policy.forecast import ForecastingSettings
from autoscaler.policy.pools import PoolSettings
from forecaster.event_settings import CalendarSettings, EventFields
from forecaster.history import BIN_S, BINS_MOST, History, Quantity
from forecaster.quantiles import Forecast
from forecaster.series import Floats, Series
from forecaster.settings import ForecastSettings
from lb.clock import Clock

log = logging.getLogger(__name__)

SETTLE_S = 20.0
"""After its end a bin is waited for: demand is read every 15 s, and what is learned of a bin is not learned again."""
_LOOK_S = 60.0
"""Between looks at the latest, for pools that rested and clocks that were set."""
_AT_ONCE_S = 5 * 86_400
"""History of one model read between two breaths of the event loop: about a millisecond."""
_REST_S, _LONGEST_REST_S = 60.0, 3600.0
"""Of a pool whose forecaster failed; each further failure doubles it."""
_PROCESS_REST_S, _LONGEST_PROCESS_REST_S = 5.0, 600.0
"""Of the process after it had to be ended."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy asks for."""

    settings: ForecastingSettings = field(default_factory=ForecastingSettings)
    events: tuple[EventFields, ...] = ()
    calendars: tuple[CalendarSettings, ...] = ()
    base: Path = Path()
    """Where relative names of calendars lie."""
    pools: tuple[PoolSettings, ...] = ()

    def setup(self) -> Setup:
        """As the process takes it."""
        settings = self.settings
        return Setup(
            settings.forecaster(), self.events, self.calendars, str(self.base.absolute()), settings.memory_bytes
        )


class Rest:
    """Doubles with each failure in a row."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._failures = 0
        self._until = float("-inf")

    def fail(self, now: float) -> float:
        """Seconds to rest from `now` on."""
        rest_s = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 20))
        self._failures += 1
        self._until = now + rest_s
        return rest_s

    def end(self) -> None:
        """It works."""
        self._failures = 0

    def left_s(self, now: float) -> float:
        return max(0.0, self._until - now)


@dataclass(slots=True)
class PoolForecast:
    """What is known of one pool."""

    pool: PoolSettings
    until_s: int = 0
    """End of the newest bin that the process was sent, in epoch seconds; 0: it knows nothing of the pool."""
    forecast: Forecast | None = None
    outlook: Outlook | None = None
    why: str = "no demand was seen yet"
    """Why there is no newer forecast; empty: there is one."""
    fit_s: float = 0.0
    """CPU time that the last one took."""
    failures: int = 0
    rest: Rest = field(default_factory=lambda: Rest(_REST_S, _LONGEST_REST_S))


class ForecastLoop:
    """One per process. `run` is a root task; `close` after it has ended."""

    def __init__(
        self,
        history: History,
        clock: Clock,
        plan: Plan,
        *,
        process: Callable[[Setup], ForecastProcess] = ForecastProcess,
    ) -> None:
        self.restarts = 0
        """Times that the process had to be ended."""
        self._history = history
        self._clock = clock
        self._make = process
        self._process: ForecastProcess | None = None
        self._process_rest = Rest(_PROCESS_REST_S, _LONGEST_PROCESS_REST_S)
        self._changed = asyncio.Event()
        self._pools: dict[str, PoolForecast] = {}
        self._problems: frozenset[str] = frozenset()
        self._renew = asyncio.Event()
        """The process was set up for another policy."""
        self._plan = Plan()
        self.reconfigure(plan)

    # ------------------------------------------------------------------ what others read

    def outlooks(self) -> Mapping[str, Outlook]:
        """For the control loop, at this instant: the latest forecast of each pool, or why there is none."""
        if not self._plan.settings.enabled:
            return {}
        now = self._clock.monotonic()
        stale_s = self._settings.stale_s
        return {
            name: nothing(one.why, now) if one.outlook is None else aged(one.outlook, now, stale_s, one.why)
            for name, one in self._pools.items()
        }

    def states(self) -> list[ForecastState]:
        """For metrics."""
        now = self._clock.monotonic()
        return [
            ForecastState(
                name, one.forecast, float("nan") if one.outlook is None else now - one.outlook.made_at, one.fit_s,
                one.failures,
            )
            for name, one in self._pools.items()
        ]  # fmt: skip

    @property
    def _settings(self) -> ForecastSettings:
        return self._plan.settings.forecaster()

    # ------------------------------------------------------------------ life

    def reconfigure(self, plan: Plan) -> None:
        """Another policy. Forecasts that still say what they said go on until there are new ones."""
        before, self._plan = self._plan, plan
        if replace(before, pools=()) != replace(plan, pools=()):
            self._renew.set()
        known, self._pools = self._pools, {}
        for pool in plan.pools:
            if not (plan.settings.enabled and pool.predictive.enabled):
                continue
            one = known.get(pool.name)
            same = one is not None and (one.pool.capacity.unit, one.pool.models) == (pool.capacity.unit, pool.models)
            if one is None or not same:
                one = PoolForecast(pool)
            one.pool = pool
            if self._renew.is_set():
                one.until_s = 0
            self._pools[pool.name] = one
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._look_or_renew()
                try:
                    async with asyncio.timeout(self._pause_s()):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            await self.close()

    async def _look_or_renew(self) -> None:
        """A look, which is broken off when another policy makes it pointless: a history may take minutes."""
        # The look begins first and takes a renewal that is due already for its own.
        look = asyncio.create_task(self.look(), name="look of the forecasts")
        renewal = asyncio.create_task(self._renew.wait(), name="renewal of the forecasts")
        try:
            await asyncio.wait((look, renewal), return_when=asyncio.FIRST_COMPLETED)
        finally:
            look.cancel()
            renewal.cancel()
            await asyncio.gather(look, renewal, return_exceptions=True)
        if not look.cancelled():
            look.result()

    async def close(self) -> None:
        """End the process. What it knew is made anew from history by the next one."""
        process, self._process = self._process, None
        if process is not None:
            await process.close()

    def _pause_s(self) -> float:
        step_s = self._settings.step_s
        return min(_LOOK_S, step_s - (self._clock.wall() - SETTLE_S) % step_s)

    # ------------------------------------------------------------------ one look

    async def look(self) -> None:
        """Send every pool's new bins, those first whose history is known, as the others take longer."""
        if self._renew.is_set() or not self._pools:
            self._renew.clear()
            await self.close()
        for one in sorted(self._pools.values(), key=lambda each: each.until_s == 0):
            await self._renewed(one)

    async def _renewed(self, one: PoolForecast) -> None:
        """Bring one pool's forecast up to date, if there is anything new."""
        now, step_s = self._clock.monotonic(), self._settings.step_s
        end_s = int((self._clock.wall() - SETTLE_S) // step_s) * step_s
        if end_s < one.until_s - step_s or end_s - one.until_s > BINS_MOST * BIN_S:
            if one.until_s:
                log.warning("pool %s: the clock was set; its forecasts begin anew", one.pool.name)
            one.until_s = 0
        if end_s <= one.until_s or one.rest.left_s(now):
            return
        begin = one.until_s == 0
        series = await self._series(one.pool, end_s - BINS_MOST * BIN_S if begin else one.until_s, end_s)
        if begin and not np.isfinite(series.values).any():
            one.why = "no demand was seen yet"
            return
        settings = self._plan.settings
        if begin:
            one.why = "the history is being gone through"
        try:
            process = await self._ready(now)
            if process is None:
                one.why = "the process that forecasts rests, as it had to be ended"
                return
            ask = Ask(one.pool.name, begin, self._clock.wall(), series, tuple(self._pools))
            answer = await process.ask(ask, settings.begin_s if begin else settings.time_s)
        except ForecastProcessError as error:
            await self._ended(one, str(error))
            return
        if self._pools.get(one.pool.name) is one and not self._renew.is_set():
            self._take(one, answer, end_s)

    async def _series(self, pool: PoolSettings, since_s: int, end_s: int) -> Series:
        """A pool's demand within [since_s, end_s), both on the grid; NaN: not known."""
        step_s = self._settings.step_s
        since_s = -(-since_s // step_s) * step_s
        quantity = Quantity(pool.capacity.unit)
        models = models_of(self._plan.pools, self._history.keys()).get(pool.name, ())
        found: list[Floats] = []
        for model in models:
            values = np.full((end_s - since_s) // step_s, np.nan)
            for low_s in range(since_s, end_s, _AT_ONCE_S):
                high_s = min(end_s, low_s + _AT_ONCE_S)
                part = self._history.series(model, quantity, now_s=high_s, step_s=step_s, since_s=low_s)
                at = (part.start_s - since_s) // step_s
                values[at : at + len(part)] = part.values
                await asyncio.sleep(0)
            found.append(values)
        if not found:
            found = [np.full((end_s - since_s) // step_s, np.nan)]
        return Series(since_s, step_s, pooled(found))

    async def _ready(self, now: float) -> ForecastProcess | None:
        """The process, begun if there is none. None: it rests. Raises ForecastProcessError."""
        if self._process is None and not self._process_rest.left_s(now):
            self._process = self._make(self._plan.setup())
            answer = await self._process.start()
            self._say(answer.problems)
        return self._process

    # ------------------------------------------------------------------ what came of it

    def _take(self, one: PoolForecast, answer: Answer, end_s: int) -> None:
        name = one.pool.name
        self._process_rest.end()
        self._say(answer.problems)
        one.fit_s = answer.cpu_s
        made = answer.forecast
        if answer.error or made is None:
            self._failed(one, answer.error or "it answered without a forecast")
            return
        outlook = outlook_of(made, mono_s=self._clock.monotonic(), wall_s=self._clock.wall())
        if not outlook.valid():
            self._failed(one, "the forecast holds what is no demand")
            return
        one.until_s, one.forecast, one.outlook, one.why = end_s, made, outlook, ""
        one.rest.end()
        for change in answer.changes:
            may = "may act" if change.trusted else "may not act"
            log.info("pool %s: its forecast %s from now on: %s", name, may, change.reason)

    def _failed(self, one: PoolForecast, reason: str) -> None:
        """What the process knew of the pool is gone or not to be believed; it begins anew after a rest."""
        rest_s = one.rest.fail(self._clock.monotonic())
        one.until_s = 0
        one.failures += 1
        one.why = reason
        log.warning(
            "pool %s: no forecast, the next try is in %.0f s", one.pool.name, rest_s, extra={"reason": reason}
        )  # fmt: skip

    async def _ended(self, one: PoolForecast, reason: str) -> None:
        """The process is of no use any more, and with it what it knew of all pools."""
        await self.close()
        self.restarts += 1
        self._process_rest.fail(self._clock.monotonic())
        for other in self._pools.values():
            other.until_s = 0
        self._failed(one, f"the process that forecasts {reason}")

    def _say(self, problems: Sequence[str]) -> None:
        """Each once, until it is gone."""
        for problem in problems:
            if problem not in self._problems:
                log.warning("forecasts: %s", problem)
        self._problems = frozenset(problems)
