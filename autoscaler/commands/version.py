"""`tidegate version`: what to put into a bug report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version as version_of

import typer

from autoscaler import compiled

_PARTS = ("uvloop", "httptools", "aiohttp", "pydantic")
"""Libraries whose version changes how the data plane behaves."""


def register(app: typer.Typer) -> None:
    app.command("version")(version)


def version() -> None:
    """Print the versions to put into a bug report."""
    parts = ", ".join(f"{name} {version_of(name)}" for name in _PARTS)
    path = compiled.described(os.environ)
    typer.echo(f"tidegate {version_of('tidegate')} (Python {platform.python_version()}, {parts}; request path {path})")
