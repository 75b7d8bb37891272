"""The demo from start to end."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live

from autoscaler.demo.children import Children, free_address
from autoscaler.demo.client import get_json
from autoscaler.demo.policy import write_policy
from autoscaler.demo.screen import Story, picture, summary, where_to_look
from autoscaler.demo.traffic import Traffic
from autoscaler.errors import EXIT_FAILURE, EXIT_OK

_REFRESH_S = 0.5
_LINE_EVERY_S = 5.0
"""Where output is not a terminal, a line takes the place of the table."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the command line says."""

    listen: str | None = None
    """host:port; None: 127.0.0.1:8080, or a free port if that is taken."""
    admin: str | None = None
    """host:port; None: 127.0.0.1:9400, or a free port if that is taken."""
    backends: tuple[str, ...] = ()
    """The user's own runtimes: no simulated ones, no traffic."""
    rate: float = 12.0
    """Requests per second at the peak."""
    duration_s: float | None = None
    """None: until Ctrl-C."""
    seed: int = 1


async def demo(settings: DemoSettings, console: Console) -> int:
    """Run it; returns the exit code. Raises StartError when something cannot start."""
    listen = free_address(settings.listen or "127.0.0.1:8080", strict=settings.listen is not None)
    admin = free_address(settings.admin or "127.0.0.1:9400", strict=settings.admin is not None)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    children = Children()
    traffic = None if settings.backends else Traffic(listen, settings.rate, random.Random(settings.seed))
    traffic_task: asyncio.Task[None] | None = None
    try:
        if settings.backends:
            balancer = await children.start_front(admin, settings.backends, listen)
        else:
            console.print(
                "Starting the balancer and its controller, which starts simulated replicas ...", highlight=False
            )
            balancer = await children.start_daemon(admin, write_policy(children.directory, listen, admin))
        console.print(
            where_to_look(listen, admin, settings.backends, own=traffic is None), highlight=False, soft_wrap=True
        )
        if traffic is not None:
            traffic_task = asyncio.create_task(traffic.run(), name="demo traffic")
        await _watch(console, admin, balancer, traffic, stop, settings.duration_s)
        if balancer.returncode is not None:
            console.print(f"The balancer ended on its own (exit {balancer.returncode}); its log: {children.log}")
            return EXIT_FAILURE
        return EXIT_OK
    finally:
        if traffic_task is not None:
            traffic_task.cancel()
        await children.stop()


async def _watch(
    console: Console,
    admin: str,
    balancer: asyncio.subprocess.Process,
    traffic: Traffic | None,
    stop: asyncio.Event,
    duration_s: float | None,
) -> None:
    """Show what happens until told to stop, the time is over, or the balancer has ended."""
    loop = asyncio.get_running_loop()
    end = None if duration_s is None else loop.time() + duration_s
    tally = traffic.tally if traffic is not None else None
    story = Story(time.time())
    live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
    next_line = loop.time() + _LINE_EVERY_S
    if live is not None:
        live.start()
    try:
        while not stop.is_set() and balancer.returncode is None and (end is None or loop.time() < end):
            news = story.hear(await get_json(admin, "/v1/pools")) if tally is not None else []
            if live is not None:
                live.update(picture(await get_json(admin, "/v1/replicas"), tally, story))
                news = []
            for line in news:
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            if live is None and tally is not None and loop.time() >= next_line:
                console.print(summary(tally), highlight=False, soft_wrap=True)
                next_line += _LINE_EVERY_S
            left = _REFRESH_S if end is None else max(0.0, min(_REFRESH_S, end - loop.time()))
            try:
                await asyncio.wait_for(stop.wait(), left)
            except TimeoutError:
                continue
    finally:
        if live is not None:
            live.stop()
