"""Secret references: policy files name secrets, they never hold them.

`env:NAME` is an environment variable, `file:NAME` a file beside the policy (a mounted Kubernetes Secret, a systemd
credential). Errors name the reference and never show a value.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from lb.errors import SettingsError

_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_MAX_BYTES = 64 * 1024
"""Largest secret file; the longest tokens in use are a few kilobytes."""


def check_reference(reference: str) -> None:
    """Raise SettingsError if this is not a well-formed reference. Looks at nothing outside the text."""
    kind, colon, name = reference.partition(":")
    if not colon or kind not in ("env", "file"):
        raise SettingsError("must be a secret reference, env:NAME or file:NAME, and not the secret itself")
    if kind == "env" and not _ENV.match(name):
        raise SettingsError("env: needs the name of an environment variable, such as env:TIDEGATE_TOKEN")
    if kind == "file":
        parts = Path(name).parts
        if not name or "\x00" in name or name.startswith("/") or ".." in parts:
            raise SettingsError("file: needs the name of a file beside the policy, without a leading / and without ..")


def resolve(reference: str, directory: Path | None, environ: Mapping[str, str]) -> str:
    """The secret that a reference names, without its trailing newline.

    `directory` is where `file:` names live (the policy's directory); None: there is no policy file, so no place for
    them. Symlinks are followed as long as they stay inside, which is how Kubernetes mounts secrets.
    Raises SettingsError, naming the reference only.
    """
    check_reference(reference)
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = environ.get(name, "")
        if not value:
            raise SettingsError(f"the secret {reference} is missing: the environment variable {name} is not set")
    else:
        value = _read(reference, name, directory)
    value = value.rstrip("\r\n")
    if not value or any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise SettingsError(f"the secret {reference} is empty or has control characters; it must be one line")
    return value


def is_exposed(reference: str, directory: Path | None) -> bool:
    """Whether a `file:` secret can be read by every user of the machine."""
    kind, _, name = reference.partition(":")
    if kind != "file" or directory is None:
        return False
    try:
        return bool((directory / name).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _read(reference: str, name: str, directory: Path | None) -> str:
    if directory is None:
        raise SettingsError(f"the secret {reference} needs a policy file, beside which it lies; use env:NAME here")
    root = os.path.realpath(directory)
    real = os.path.realpath(directory / name)
    if os.path.commonpath([root, real]) != root:
        raise SettingsError(f"the secret {reference} leads out of the policy's directory, which is not allowed")
    try:
        with Path(real).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"the secret {reference} is missing: {error.strerror or 'cannot be read'}") from None
    if len(data) > _MAX_BYTES:
        raise SettingsError(f"the secret {reference} is larger than {_MAX_BYTES // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"the secret {reference} is not text") from None
