"""`tidegate hash-key`: an API key's digest for the policy, so that the key itself is nowhere at rest."""

from __future__ import annotations

import getpass
import hashlib
import re
import secrets
import sys
from typing import Annotated

import typer

from autoscaler.errors import EXIT_BAD_INPUT, StartError

_EPILOG = """\b
The key is read from standard input, or asked for without echo; an empty answer makes a new one.
The snippet goes to standard output; a key that was made is shown once, on standard error.

\b
Examples:
  tidegate hash-key --name team-a --generate >> keys.yaml
  printf %s "$KEY" | tidegate hash-key --name team-a
"""
_NAME = r"[A-Za-z0-9._-]{1,64}"
"""What `lb.keys[].name` allows: it becomes a metric label."""
_MIN_CHARACTERS = 16
"""SHA-256 without salt is safe for random keys and for nothing shorter: 16 random letters are 90 bits."""


def register(app: typer.Typer) -> None:
    app.command("hash-key", epilog=_EPILOG)(hash_key)


def hash_key(
    name: Annotated[str, typer.Option(help="Who the key belongs to: its tenant name in metrics and logs.")] = "default",
    generate: Annotated[bool, typer.Option("--generate", help="Make a new random key.")] = False,
) -> None:
    """Print the SHA-256 of an API key as the policy wants it."""
    if not re.fullmatch(_NAME, name):
        raise StartError(f"--name {name!r} must be 1 to 64 letters, digits or . _ -", EXIT_BAD_INPUT)
    key = "" if generate else _read()
    if not key:
        key = f"tg-{secrets.token_urlsafe(32)}"
        sys.stderr.write(f"The new key, shown only now: {key}\n")
    elif len(key) < _MIN_CHARACTERS:
        raise StartError(f"a key needs at least {_MIN_CHARACTERS} characters; --generate makes one", EXIT_BAD_INPUT)
    digest = hashlib.sha256(key.encode()).hexdigest()
    typer.echo(f"lb:\n  keys:\n    - name: {name}\n      sha256: {digest}")


def _read() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("API key (empty: make one): ").strip()
    key = sys.stdin.readline().strip()
    if not key:
        raise StartError("no key on standard input; write one there, or use --generate", EXIT_BAD_INPUT)
    return key
