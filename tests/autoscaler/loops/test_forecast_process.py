"""Real processes that forecast, and all that can go wrong with one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoscaler.forecast_wire import Ask, Setup
from autoscaler.loops.forecast_process import ForecastProcess, ForecastProcessError
from autoscaler.loops.forecasting import ForecastLoop, Plan
from autoscaler.policy.forecast import ForecastingSettings
from autoscaler.policy.pools import PoolSettings
from forecaster.event_settings import CalendarSettings, EventFields
from forecaster.forecast import forecast
from forecaster.history import History, Row
from forecaster.series import Series
from forecaster.settings import ForecastSettings
from lb.clock import SYSTEM_CLOCK

ROOT = Path(__file__).parents[3]
ODD = (sys.executable, "-P", str(Path(__file__).with_name("odd_forecaster.py")))
WALL_S = 1_700_000_100 // 300 * 300
MEMORY_BYTES = 512 << 20
Start = Callable[..., Any]


def demand(days: float = 2.0) -> Series:
    """A daily shape with noise, in bins of five minutes up to WALL_S."""
    count = int(days * 288)
    rng = np.random.default_rng(1)
    mean = 300 * (1 + 0.5 * np.sin(np.arange(count) / 288 * 2 * np.pi))
    return Series(WALL_S - 300 * count, 300, rng.poisson(mean).astype(float))


def ask(pool: str, series: Series | None = None, *, begin: bool = True) -> Ask:
    known = demand() if series is None else series
    return Ask(pool, begin, known.end_s + 20.0, known, (pool, "fine"))


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    lives: list[ForecastProcess] = []

    async def begin(command: tuple[str, ...] = ODD, **fields: Any) -> ForecastProcess:
        known: dict[str, Any] = {"settings": ForecastSettings(), "events": (), "calendars": (), "base": "/"}
        life = ForecastProcess(Setup(**{**known, "memory_bytes": MEMORY_BYTES, **fields}), command)
        lives.append(life)
        await life.start()
        return life

    yield begin
    for life in lives:
        await life.close()


PARENT = """
import asyncio
import sys

import numpy as np

from autoscaler.forecast_wire import Ask, Setup
from autoscaler.loops.forecast_process import ForecastProcess
from forecaster.series import Series
from forecaster.settings import ForecastSettings


async def main():
    life = ForecastProcess(Setup(ForecastSettings(), (), (), "/", 1 << 30), sys.argv[1:])
    await life.start()
    print(life.pid, flush=True)
    await life.ask(Ask("hang", True, 300.0, Series(0, 300, np.ones(1)), ("hang",)), 3600.0)


asyncio.run(main())
"""
"""One that is killed while it waits for an answer."""


def of_process(pid: int | None, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def gone(pid: int | None) -> bool:
    """It runs no more; whoever inherited it may not have looked yet."""
    try:
        return of_process(pid, "stat").rpartition(b") ")[2].startswith(b"Z")
    except OSError:
        return True


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20.0
    while not gone(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.02)


async def test_it_says_what_the_forecaster_says_bin_by_bin(start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken.ics").write_text("nothing of the sort")
    launch = EventFields.model_validate({"at": "2023-11-14 22:00 UTC", "for": "3h", "demand": "x2", "name": "launch"})
    events, calendars = (launch,), (CalendarSettings(file=Path("broken.ics")),)
    life = await start(events=events, calendars=calendars, base=str(tmp_path))
    whole = demand()
    early = Series(whole.start_s, 300, whole.values[:-3])
    first = await life.ask(ask("talk", early), 30.0)
    second = await life.ask(ask("talk", whole.last(900), begin=False), 30.0)
    alone = forecast(early, now_s=early.end_s + 20.0, events=[launch.event()])
    assert first.error == ""
    assert first.forecast == alone
    assert len(first.changes) == 1, "two days prove enough"
    assert second.forecast is not None
    assert second.forecast.made_at_s == WALL_S
    assert 0.0 < second.cpu_s < first.cpu_s
    (problem,) = second.problems
    assert problem.startswith(str(tmp_path / "broken.ics"))
    plain = forecast(early, now_s=early.end_s + 20.0)
    assert plain is not None
    assert alone is not None
    assert alone.values[0] != plain.values[0], "the launch is under way"


async def test_what_fails_within_it_costs_one_pool_and_not_the_process(start: Start) -> None:
    life = await start()
    failed = await life.ask(ask("raise"), 30.0)
    assert (failed.forecast, failed.error) == (None, "the forecaster failed: ZeroDivisionError: by zero")
    hog = await life.ask(ask("hog"), 30.0)
    assert hog.forecast is None
    assert hog.error == f"the forecaster takes more than forecast.memory ({MEMORY_BYTES} bytes)"
    assert hog.rss_bytes < MEMORY_BYTES, "what it took is given back"
    fine = await life.ask(ask("fine"), 30.0)
    assert fine.error == ""
    assert fine.forecast is not None


@pytest.mark.parametrize(
    ("pool", "limit_s", "told"),
    [
        ("hang", 0.3, "did not answer within 0.3 s"),
        ("spin", 0.3, "did not answer within 0.3 s"),
        ("killed", 30.0, "ended with SIGKILL"),
        ("exit", 30.0, "ended with exit code 3: something dreadful"),
        ("closed", 30.0, "closed the socket"),
    ],
)
async def test_what_it_does_instead_of_answering_is_told(start: Start, pool: str, limit_s: float, told: str) -> None:
    life = await start()
    pid = life.pid
    with pytest.raises(ForecastProcessError) as caught:
        await life.ask(ask(pool), limit_s)
    assert str(caught.value) == told
    await life.close()
    assert gone(pid)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("/nowhere/python",), "cannot be started: .*nowhere"),
        ((sys.executable, "-c", "import os; os.write(0, b'a banner that nobody asked for')"), "too long to be one"),
        ((sys.executable, "-c", "print('I am done')"), "ended with exit code 0: I am done"),
        ((sys.executable, "-c", "raise SystemExit('not today')"), "ended with exit code 1: not today"),
        ((sys.executable, "-c", "import os; os.write(0, b'\\2\\0\\0\\0\\0\\0\\0\\0[]')"), "no answer"),
    ],
)
async def test_a_start_that_fails_is_told(start: Start, command: tuple[str, ...], told: str) -> None:
    with pytest.raises(ForecastProcessError, match=told):
        await start(command)


async def test_it_sees_no_secret_of_its_parent_and_stands_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_UPSTREAM_KEY", "secret")
    life = await start()
    seen = of_process(life.pid, "environ")
    assert b"OPENBLAS_NUM_THREADS=1" in seen
    assert b"secret" not in seen
    nice = int(of_process(life.pid, "stat").rpartition(b") ")[2].split()[16])
    assert nice > os.nice(0), "requests go first"


async def test_a_parent_that_is_killed_takes_it_along() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, *ODD, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        pid = int(await process.stdout.readline())
    assert not gone(pid)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await asyncio.to_thread(until_gone, pid)


async def test_the_event_loop_is_never_held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time of the loop's thread in each callback: what else runs on the machine is no fault of ours."""
    longest = 0.0
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        nonlocal longest
        began = time.thread_time()
        run(handle)
        longest = max(longest, time.thread_time() - began)

    history, now = History(), time.time()
    end = int(now // 60) * 60
    for model in ("a", "b", "c"):
        history.load((Row(model, end - 60 * (n + 1), n % 97, 1.0, 1.0) for n in range(45 * 1440)), now_s=now)
    settings = ForecastingSettings(bin_s=60.0, begin_s=2.0)
    loop = ForecastLoop(
        history, SYSTEM_CLOCK, Plan(settings, pools=(PoolSettings(name="spin"),)),
        process=lambda setup: ForecastProcess(setup, ODD),
    )  # fmt: skip
    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    await loop.look()
    monkeypatch.undo()
    assert loop.outlooks()["spin"].reason == "the process that forecasts did not answer within 2 s"
    assert loop.restarts == 1
    assert 0.0 < longest < 0.01, f"held for {1000 * longest:.1f} ms"
