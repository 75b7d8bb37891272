"""The `tidegate` command. Each subcommand is a file of `autoscaler.commands` with a `register` function.

Nothing heavy is imported here: the daemon, the forecaster and the plots load when their command runs.
"""

from __future__ import annotations

import importlib
import os
import sys

import typer

from autoscaler import compiled
from autoscaler.errors import EXIT_BAD_INPUT, StartError

COMMANDS = (
    "lb", "run", "check", "schema", "hash_key", "explain", "demo", "mock_runtime", "gpus", "simulate", "replay",
    "history", "backtest", "forecast", "version",
)  # fmt: skip
"""Modules of `autoscaler.commands`, in the order of the help."""

_HELP = "Load balancer and autoscaler for AI inference: routes by predicted work, scales ahead of demand."
_EPILOG = """\b
Examples:
  tidegate lb --backend http://10.0.0.1:8000 --backend http://10.0.0.2:8000
  tidegate check policy.yaml && tidegate run --policy policy.yaml

\b
Exit codes: 0 done, 1 failed (the message says what), 2 wrong command line or policy.
"""


def build() -> typer.Typer:
    """The application with every command."""
    app = typer.Typer(
        name="tidegate",
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        # Pretty tracebacks print local variables, and those may hold secrets.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    for name in COMMANDS:
        importlib.import_module(f"autoscaler.commands.{name}").register(app)
    return app


def main() -> None:
    """Entry point of the console script."""
    in_vain = compiled.activate(os.environ, sys.path)
    if in_vain is not None:
        sys.stderr.write(f"tidegate: {in_vain}\n")
    from lb.yaml_document import DocumentError

    try:
        build()(prog_name="tidegate")
    except StartError as error:
        _fail(str(error), error.exit_code)
    except DocumentError as error:
        _fail("; ".join(problem.text("policy") for problem in error.problems), EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str, exit_code: int) -> None:
    sys.stderr.write(f"tidegate: {message}\n")
    sys.exit(exit_code)
