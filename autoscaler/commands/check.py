"""`tidegate check FILE`: every mistake of a policy at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.errors import EXIT_BAD_INPUT

if TYPE_CHECKING:
    from autoscaler.policy.load import LoadedPolicy
    from autoscaler.policy.schema import Policy

_EPILOG = """\b
Prints one line per mistake: FILE:LINE: field = value: what would be right.
Secrets are not looked up, so a policy can be checked where it is written.

\b
Examples:
  tidegate check policy.yaml
  git diff --name-only | grep yaml$ | xargs -n1 tidegate check

\b
Exit codes: 0 the policy is good, 2 it is not.
"""


def register(app: typer.Typer) -> None:
    app.command("check", epilog=_EPILOG)(check)


def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="Policy to check.")]) -> None:
    """Check a policy file and report every mistake with its line."""
    typer.echo(f"{file}: good: {summary(read_policy(file).policy)}")


def read_policy(file: Path) -> LoadedPolicy:
    """A policy, or every mistake in it on standard error and exit code 2."""
    from autoscaler.policy.load import load
    from lb.yaml_document import DocumentError

    try:
        return load(file)
    except DocumentError as error:
        for problem in error.problems:
            sys.stderr.write(problem.text(str(file)) + "\n")
        count = len(error.problems)
        sys.stderr.write(f"tidegate: {count} problem{'s' if count != 1 else ''} in {file}\n")
        raise typer.Exit(EXIT_BAD_INPUT) from None


def summary(policy: Policy) -> str:
    """One line of what a policy says."""
    lb = policy.lb
    parts = [f"{len(lb.backends)} backend{'s' if len(lb.backends) != 1 else ''}"]
    kinds = (("file", lb.files), ("DNS name", lb.dns), ("Kubernetes selection", lb.kubernetes))
    parts += [f"{len(sources)} {kind}" for kind, sources in kinds if sources]
    parts.append(f"{len(lb.keys)} API keys" if lb.keys else "no API keys")
    return f"listens on {lb.listen}, {', '.join(parts)}, strategy {lb.routing.strategy}, admin on {lb.admin.listen}"
