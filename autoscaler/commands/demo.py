"""`tidegate demo`: the whole thing on one machine, without any set-up."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", "-b", metavar="URL", help="Your own replica; repeat it. None: simulated ones."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="ADDR", help="host:port for clients.", show_default="127.0.0.1:8080")
    ] = None,
    admin: Annotated[
        str | None, typer.Option(metavar="ADDR", help="host:port for metrics and admin.", show_default="127.0.0.1:9400")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second at the peak.")] = 12.0,
    duration: Annotated[str | None, typer.Option(help="End after this time (`30s`).", show_default="Ctrl-C")] = None,
) -> None:
    """Scale simulated replicas ahead of traffic that rises and falls, and say where to look.

    The controller starts them, drains them and ends them; what it does and why is shown below the table. With --backend
    it fronts your own runtimes instead, and sends them nothing of its own.
    """
    import asyncio

    from rich.console import Console

    from autoscaler.commands.mock_runtime import duration_s
    from autoscaler.demo.run import DemoSettings
    from autoscaler.demo.run import demo as run_demo

    settings = DemoSettings(
        listen=listen,
        admin=admin,
        backends=tuple(backend or ()),
        rate=rate,
        duration_s=None if duration is None else duration_s(duration),
    )
    raise typer.Exit(asyncio.run(run_demo(settings, Console())))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)
