"""`tidegate run --policy FILE`: the daemon from a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_EPILOG = """\b
Signals: SIGTERM or SIGINT end it (running requests may finish within `lb.timeouts.shutdown`, a second
signal cuts them), SIGHUP reads the policy again. The file is watched too: a change that is right takes
effect without a restart, one that is wrong is refused whole and the log says why.

\b
Examples:
  tidegate run --policy /etc/tidegate/policy.yaml
  kill -HUP $(pidof tidegate)

\b
Exit codes: 0 ended by a signal, 1 a part failed (the log names it), 2 the policy is wrong.
"""


def register(app: typer.Typer) -> None:
    app.command("run", epilog=_EPILOG)(run)


def run(policy: Annotated[Path, typer.Option("--policy", "-p", metavar="FILE", help="Policy to run.")]) -> None:
    """Run what a policy file describes."""
    from autoscaler.commands.check import read_policy

    loaded = read_policy(policy)
    from autoscaler.daemon import run_daemon

    raise typer.Exit(run_daemon(loaded.policy, loaded))
