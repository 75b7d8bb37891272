"""`tidegate lb --backend URL`: the load balancer from the command line, without a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from autoscaler.errors import EXIT_BAD_INPUT

if TYPE_CHECKING:
    from autoscaler.policy.schema import Policy
    from lb.decode import Loc

_EPILOG = """\b
Every replica must serve the same API; what it runs (vLLM, SGLang, TGI, Triton, llama.cpp, Ollama, ...)
is found out when it joins. Metrics, health and `explain` are on the admin address.

\b
Examples:
  tidegate lb --backend http://10.0.0.1:8000 --backend http://10.0.0.2:8000
  tidegate lb --listen 0.0.0.0:8080 --backend http://gpu-1:8000 --log-format json
  curl http://127.0.0.1:8080/v1/models

\b
Exit codes: 0 ended by a signal, 1 a part failed (the log names it), 2 wrong command line.
"""
_OPTIONS = {"listen": "--listen", "admin.listen": "--admin", "admin.token": "--admin-token", "backends": "--backend"}

Strategy = Literal["tidegate", "round-robin", "random", "least-requests", "p2c"]


def register(app: typer.Typer) -> None:
    app.command("lb", epilog=_EPILOG)(lb)


def lb(
    backend: Annotated[
        list[str], typer.Option("--backend", "-b", metavar="URL", help="Replica, http://host:port[/prefix]; repeat it.")
    ],
    listen: Annotated[str, typer.Option(metavar="ADDR", help="host:port for clients.")] = "127.0.0.1:8080",
    admin: Annotated[str, typer.Option(metavar="ADDR", help="host:port for metrics and admin.")] = "127.0.0.1:9400",
    admin_token: Annotated[
        str | None, typer.Option(metavar="REF", help="env:NAME of the admin token; needed off loopback.")
    ] = None,
    strategy: Annotated[
        Strategy, typer.Option(help="How replicas are chosen; all but tidegate are for comparison.")
    ] = "tidegate",
    runtime: Annotated[str, typer.Option(help="What the replicas run; auto finds out.")] = "auto",
    log_format: Annotated[Literal["text", "json"], typer.Option(help="Form of the log.")] = "text",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="Least level.")] = "info",
    access_log: Annotated[
        Literal["off", "errors", "all"], typer.Option(help="Requests to log; errors: failed, retried or waited.")
    ] = "errors",
) -> None:
    """Balance requests over replicas named here; no file is needed."""
    from autoscaler.policy.schema import Policy
    from lb.settings import (
        AdminSettings,
        BackendSettings,
        LbSettings,
        LogSettings,
        RoutingSettings,
    )

    settings = LbSettings(
        listen=listen,
        backends=tuple(BackendSettings(url=url, runtime=runtime) for url in backend),
        admin=AdminSettings(listen=admin, token=admin_token),
        routing=RoutingSettings(strategy=strategy),
        log=LogSettings(format=log_format, level=log_level, access=access_log),
    )
    policy = Policy(lb=settings)
    _refuse_mistakes(policy)
    from autoscaler.daemon import run_daemon

    raise typer.Exit(run_daemon(policy))


def _refuse_mistakes(policy: Policy) -> None:
    from autoscaler.policy.load import check

    mistakes = list(check(policy))
    for mistake in mistakes:
        sys.stderr.write(f"tidegate lb: {_option(policy, mistake.loc)}: {mistake.message}\n")
    if mistakes:
        raise typer.Exit(EXIT_BAD_INPUT)


def _option(policy: Policy, loc: Loc) -> str:
    """The option that a place in the settings came from."""
    from lb.decode import shorten_text

    if loc[1] == "backends":
        backend = policy.lb.backends[cast("int", loc[2])]
        return f"--runtime {backend.runtime}" if loc[-1] == "runtime" else f"--backend {shorten_text(backend.url)}"
    return _OPTIONS[".".join(map(str, loc[1:]))]
